"""Files that say which image was published, as Tekton and kbld read them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from ..oci.digest import Digest
from ..store.output import write_whole

_STDOUT = "/dev/stdout"
_STREAMS = (_STDOUT, "/dev/stderr")  # opened anew, a file would be written over
_DEVICES = ("/dev/", "/proc/")  # may lead to a file, but nobody means to replace it


def write_digest(path: Path, digest: Digest) -> None:
    """Write the digest of an image; see `write_record`.

    A file has the digest alone: Tekton passes on a newline as a part of it.
    """
    is_file = _is_file(_absolute(path))
    write_record(path, str(digest) if is_file else f"{digest}\n")


def write_references(path: Path, published: Iterable[tuple[str, Digest]]) -> None:
    """Write `NAME@DIGEST` for each name that an image has now; see `write_record`."""
    lines = [f"{name.removesuffix(f'@{digest}')}@{digest}\n" for name, digest in published]
    write_record(path, "".join(lines))


def write_record(path: Path, text: str) -> None:
    """Write a file, or replace it at once (`write_whole`); into no regular file it is appended.

    `-` is stdout.

    Raises:
        OSError: it cannot be written; `filename` is the path.
    """
    path = _absolute(path)
    try:
        if str(path) in _STREAMS:
            stream = sys.stdout if str(path) == _STDOUT else sys.stderr
            stream.write(text)
            stream.flush()
        elif _is_file(path):
            write_whole(path, text.encode())
        else:
            with path.open("a") as file:
                file.write(text)
    except OSError as error:
        error.filename, error.filename2 = str(path), None  # not the name before the right one
        raise


def _absolute(path: Path) -> Path:
    return Path(_STDOUT) if str(path) == "-" else path.absolute()


def _is_file(path: Path) -> bool:
    return not str(path).startswith(_DEVICES) and (path.is_file() or not path.exists())
