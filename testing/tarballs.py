"""Layer tars, made piece by piece so that none has to fit in memory."""

from __future__ import annotations

import random
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

BUSYBOX = Path("/bin/busybox")
APPLETS = ("sh", "cat", "echo", "env", "false", "id", "ls", "sleep", "true", "wget")
CREATED = 1_700_000_000  # seconds; fixed, since images must not depend on the clock
FILES = 3  # regular files of a random tar
PIECE = 1 << 20  # bytes; the largest piece of random data

_Entry = tuple[tarfile.TarInfo, Iterable[bytes]]


def random_tar(name: str, size: int) -> Iterator[bytes]:
    """Yield a tar with `size` bytes of incompressible files; `name` is also the seed."""
    return _tar(_random_entries(name, size))


def busybox_tar() -> Iterator[bytes]:
    """Yield a tar of a root file system that has a shell.

    Raises:
        FileNotFoundError: there is no /bin/busybox.
    """
    return _tar(_busybox_entries(BUSYBOX.read_bytes()))


def _tar(entries: Iterable[_Entry]) -> Iterator[bytes]:
    total = 0
    for info, content in entries:
        info.mtime = CREATED
        header = info.tobuf(tarfile.PAX_FORMAT)
        yield header
        yield from content
        padding = bytes(-info.size % tarfile.BLOCKSIZE)
        yield padding
        total += len(header) + info.size + len(padding)
    end = 2 * tarfile.BLOCKSIZE
    yield bytes(end + -(total + end) % tarfile.RECORDSIZE)


def _random_entries(name: str, size: int) -> Iterator[_Entry]:
    yield _directory("data"), ()
    yield _directory(f"data/{name}"), ()
    for number in range(FILES):
        share = size // FILES + (size % FILES if number == 0 else 0)
        info = tarfile.TarInfo(f"data/{name}/{number}")
        info.size = share
        yield info, _random_bytes(f"{name}/{number}", share)
    yield _link(f"data/{name}/first", "0"), ()


def _random_bytes(seed: str, size: int) -> Iterator[bytes]:
    source = random.Random(seed)
    for start in range(0, size, PIECE):
        yield source.randbytes(min(PIECE, size - start))


def _busybox_entries(program: bytes) -> Iterator[_Entry]:
    for name, mode in (("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777)):
        yield _directory(name, mode), ()
    for name, content, mode in (
        ("bin/busybox", program, 0o755),
        ("etc/passwd", b"root:x:0:0:root:/:/bin/sh\n", 0o644),
    ):
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(content), mode
        yield info, (content,)
    for applet in APPLETS:
        yield _link(f"bin/{applet}", "busybox"), ()


def _directory(name: str, mode: int = 0o755) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, mode
    return info


def _link(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info
