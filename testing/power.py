"""A disk that remembers what it was told, so that its power can fail at any moment afterwards.

`python -m ocistow.testing.power IMAGE LOG FILE` is the disk: it serves an image as the one file
of a FUSE mount, and logs each write and each flush before it answers. A loop device turns
the flushes of a file system into fsync(2) of that file, so what the log has before a flush is
what a drive would have kept. `Recording` mounts what is left when some of the rest is lost.
"""

from __future__ import annotations

import os
import random
import stat
import struct
import subprocess
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyfuse3
import trio

from .filesystems import make, mounted_image, unmount
from .mounts import TIMEOUT, Log, environment, wait_until

SECTOR = 4096  # bytes that a drive writes whole or not at all; ext4 dies of half a superblock

_HEAD = struct.Struct("<qq")  # offset, length of what follows
_FLUSH = _HEAD.pack(-1, 0)


class Recorder(pyfuse3.Operations):
    """The disk. Only the kernel's loop device uses it, after one open."""

    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = False

    def __init__(self, image: int, log: int) -> None:
        super().__init__()
        self._image = image
        self._log = log

    async def getattr(
        self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext | None = None
    ) -> pyfuse3.EntryAttributes:
        """Describe the one file, which is also the root."""
        found = pyfuse3.EntryAttributes()
        found.st_ino = inode
        found.st_mode = pyfuse3.ModeT(stat.S_IFREG | 0o600)
        found.st_size = os.fstat(self._image).st_size
        found.st_nlink = 1
        return found

    async def setattr(
        self,
        inode: pyfuse3.InodeT,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: pyfuse3.FileHandleT | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """Take times, which nobody reads."""
        return await self.getattr(inode)

    async def open(
        self, inode: pyfuse3.InodeT, flags: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.FileInfo:
        """Open it."""
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(0))

    async def read(self, fh: pyfuse3.FileHandleT, off: int, size: int) -> bytes:
        """Return bytes of the image."""
        return os.pread(self._image, size, off)

    async def write(self, fh: pyfuse3.FileHandleT, off: int, buf: bytes) -> int:
        """Log and write."""
        os.writev(self._log, [_HEAD.pack(off, len(buf)), buf])
        return os.pwrite(self._image, buf, off)

    async def fsync(self, fh: pyfuse3.FileHandleT, datasync: bool) -> None:
        """Log: whoever waits for this believes that every write so far is kept."""
        os.write(self._log, _FLUSH)


@dataclass(frozen=True, slots=True)
class Write:
    """Some bytes that the disk was given, or a flush of those before it.

    Attributes:
        end: of its record in the log, as `Recording.now` counts.
        offset: on the disk.
        data: None for a flush.
    """

    end: int
    offset: int
    data: bytes | None


class Recording:
    """A file system on such a disk, and afterwards what power failures leave of it.

    Attributes:
        path: where it is mounted, until `stop`.
    """

    def __init__(self, directory: Path, kind: str) -> None:
        self.path = directory / "disk"
        self._kind = kind
        self._image = directory / "image"
        self._kept = directory / "kept"  # what surely survives a failure at `_at`
        self._crashed = directory / "crashed"
        self._log = directory / "log"
        self._writes: list[Write] = []
        self._at = 0
        self._pending: list[tuple[int, bytes]] = []

    def now(self) -> int:
        """Return the moment: how much the disk has been told so far."""
        return self._log.stat().st_size

    @contextmanager
    def running(self, options: str = "") -> Generator[Path]:
        """Make the file system and mount it for the block; then failures can be looked at.

        What is made before the first flush of the block counts as well.

        Raises:
            Unavailable: see `filesystems.mounted`.
        """
        make(self._kind, self._image)
        sparse_copy(self._image, self._kept)
        self._log.touch()
        with (
            _served(self._image, self._log, self._image.with_name("file")) as file,
            mounted_image(self._kind, file, self.path, options=options),
        ):
            yield self.path
        self._writes = [*_read(self._log)]

    def moments(self) -> list[int]:
        """Return when the disk was told something, in order."""
        return [write.end for write in self._writes]

    @contextmanager
    def failed(self, moment: int, chance: random.Random) -> Generator[Path]:
        """Mount, for the block, what a power failure at that moment leaves.

        Of the writes since the last flush all, none, or any are kept, and of some of these only
        some sectors. Moments must not decrease from call to call.
        """
        while self._at < len(self._writes) and self._writes[self._at].end <= moment:
            write = self._writes[self._at]
            self._at += 1
            if write.data is not None:
                self._pending.append((write.offset, write.data))
            else:
                _apply(self._kept, self._pending)
                self._pending.clear()
        sparse_copy(self._kept, self._crashed)
        _apply(self._crashed, survivors(self._pending, chance))
        with mounted_image(self._kind, self._crashed, self.path) as path:
            yield path


def survivors(
    writes: Sequence[tuple[int, bytes]], chance: random.Random
) -> Iterator[tuple[int, bytes]]:
    """Yield what is left of writes that no flush followed; both are offsets and bytes."""
    odds = chance.choice((0.0, 0.5, 0.9, 1.0))
    torn = chance.choice((0.0, 0.3))
    for offset, data in writes:
        step = SECTOR if chance.random() < torn else len(data)
        for at in range(0, len(data), step):
            if chance.random() < odds:
                yield offset + at, data[at : at + step]


def sparse_copy(source: Path, target: Path) -> None:
    """Copy a file without its holes."""
    with source.open("rb", buffering=0) as old, target.open("wb", buffering=0) as new:
        size = os.fstat(old.fileno()).st_size
        new.truncate(size)
        end = 0
        while end < size:
            try:
                start = os.lseek(old.fileno(), end, os.SEEK_DATA)
            except OSError:  # ENXIO: only a hole is left
                break
            end = os.lseek(old.fileno(), start, os.SEEK_HOLE)
            while start < end:
                left = end - start
                start += os.copy_file_range(old.fileno(), new.fileno(), left, start, start)


def _apply(image: Path, writes: Iterable[tuple[int, bytes]]) -> None:
    with image.open("r+b", buffering=0) as file:
        for offset, data in writes:
            os.pwrite(file.fileno(), data, offset)


def _read(log: Path) -> Iterator[Write]:
    content = log.read_bytes()
    at = 0
    while at < len(content):
        offset, length = _HEAD.unpack_from(content, at)
        at += _HEAD.size + length
        yield Write(at, offset, content[at - length : at] if offset >= 0 else None)


@contextmanager
def _served(image: Path, log: Path, file: Path) -> Generator[Path]:
    file.touch()
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, image, log, file],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stderr is not None
    said = Log(process.stderr)
    try:
        wait_until(lambda: file.stat().st_size > 0 or process.poll() is not None, "the disk")
        if process.poll() is not None:
            raise OSError("\n".join(said.join()))
        yield file
    finally:
        unmount(file)
        process.wait(TIMEOUT)
        said.join()


def _serve(image: str, log: str, file: str) -> None:
    data = os.open(image, os.O_RDWR)
    pyfuse3.init(Recorder(data, os.open(log, os.O_WRONLY | os.O_APPEND)), file, {"fsname=recorded"})
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close(unmount=False)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
