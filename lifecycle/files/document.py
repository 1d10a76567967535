"""Files of TOML: read with bounds, written whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar, cast

from ...oci.document import MAX_TABLE, Object, parse_table
from ...oci.errors import InvalidContent
from ...store.output import write_whole
from ..golang import toml as gotoml

T = TypeVar("T")


def read_file(path: Path, noun: str, parse: Callable[[Object, str], T]) -> T | None:
    """Read a file that may be absent, which is None; `noun` is what Go's lifecycle calls it.

    Raises:
        InvalidContent: it cannot be read or understood; the message is that of Go's lifecycle.
    """
    try:
        document = read_toml(path)
        return None if document is None else parse(document, str(path))
    except InvalidContent as error:
        raise InvalidContent(f"failed to read {noun} file: {error}") from error
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise InvalidContent(f"failed to read {noun} file: open {path}: {reason}") from error


def read_required(path: Path, noun: str, parse: Callable[[Object, str], T]) -> T:
    """Read a file that must be there; see `read_file`."""
    found = read_file(path, noun, parse)
    if found is None:
        reason = os.strerror(errno.ENOENT).lower()
        raise InvalidContent(f"failed to read {noun} file: open {path}: {reason}")
    return found


def read_toml(path: Path) -> Object | None:
    """Read a file of at most `MAX_TABLE` bytes; None if there is none.

    Raises:
        InvalidContent: it is no regular file, too large, or not TOML; the message names it.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO must not wait
    except FileNotFoundError:
        return None
    with open(file, "rb") as stream:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise InvalidContent(f"{path} is not a regular file")
        return parse_toml(stream.read(MAX_TABLE + 1), str(path))


def parse_toml(raw: bytes, what: str) -> Object:
    """Read a document of at most `MAX_TABLE` bytes; `what` names it in messages.

    Integers are those of 64 bits, as TOML promises and Go has. Members that are asked for are
    found in any case, as by Go's lifecycle.

    Raises:
        InvalidContent: it is too large, too deep, or not TOML.
    """
    return _Table(parse_table(raw, what))


class _Table(dict[str, object]):
    """A table as it was written, in which `get` also finds a name that differs in its case."""

    def __init__(self, members: Mapping[str, object]) -> None:
        super().__init__((name, _foldable(value)) for name, value in members.items())

    def get(self, name: str, default: object = None, /) -> object:
        if name in self:
            return self[name]
        return next((self[other] for other in self if other.lower() == name.lower()), default)


def _foldable(value: object) -> object:
    if isinstance(value, dict):
        return _Table(cast("Object", value))
    return list(map(_foldable, cast("list[object]", value))) if isinstance(value, list) else value


def write_toml(path: Path, document: Mapping[str, object]) -> None:
    """Write a file of TOML as `write_file` does.

    Raises:
        InvalidContent: a value is nothing that TOML has.
    """
    write_file(path, gotoml.encode(document))


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, and the directories above it that are missing.

    See `write_whole` for links, and for what cannot be replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)
