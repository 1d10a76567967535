"""An archive that can be read only once, such as standard input or one that is compressed."""

from __future__ import annotations

import fcntl
import os
import stat
import sys
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from ...oci.descriptor import Descriptor
from ...oci.digest import CANONICAL, is_encoded
from ...oci.errors import InvalidContent
from ...oci.image_layout import BLOBS
from ...store.blobs import BlobStore
from ...store.ingest import Ingest
from ...store.reading import READ_SIZE
from ..compression import Inflated, Unread, form_of, inflated, read_block
from ..packing import WORKERS, Packed, Packer
from ..recognition import Recognition
from ..source import Blob, Section, Stream, Watch, unwatched
from .archive import Archive, ArchiveFile, check_size, follow
from .entries import BLOCK, Forward, is_header
from .tarball import Member, Members

SMALL = 64 << 10  # bytes; smaller files share one unnamed file
MAX_FILES = 256  # unnamed files; what comes after them shares that one, too
MAX_REST = 1 << 20  # bytes after the end of an archive; writers fill a block of up to 64 KiB

Packs = Callable[[str, int], bool]  # whether a plain tar of this name and size is compressed


def never(name: str, size: int) -> bool:
    """Compress nothing: a blob of an image layout stays what it is."""
    return False


def unless_known(recognition: Recognition) -> Packs:
    """Return what leaves alone tars that are as long as a layer that was seen before.

    They are mostly that layer; if not, they are compressed from their unnamed files.
    """
    return lambda _, size: not recognition.may_know(size)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a file waits: all of an unnamed file, or a part of that of the small ones."""

    ingest: Ingest
    offset: int
    size: int
    whole: bool


class Spool:
    """The files of an archive, in unnamed files of a pool until they are put or it is closed.

    Memory holds one block of a file at a time, and those that wait for compression.
    Once it is filled it is thread-safe.
    """

    def __init__(self, name: str, pool: BlobStore) -> None:
        self.name = name
        self._pool = pool
        self._stack = ExitStack()
        self._shared: Ingest | None = None
        self._own = 0
        self._targets: dict[str, str] = {}
        self._places: dict[str, _Place] = {}
        self._packed: dict[str, Packed] = {}

    def fill(self, stream: Stream, *, links: bool, packs: Packs, watch: Watch = unwatched) -> None:
        """Read an archive, compressed or not, to its end.

        Plain tars in it are compressed on the way where `packs` says so. `watch` hears how
        much of the stream was read.

        Raises:
            InvalidContent: it is no archive, ends early, or has members that could not be
                unpacked safely; see `Members`.
        """
        plain = Forward(inflated(_Watched(stream, watch)))
        with ThreadPoolExecutor(WORKERS, "pack") as executor:
            packer = Packer(executor)
            for path, member, content in Members(plain, self.name, links=links):
                self._targets[path] = member.target
                if not member.target:
                    start = read_block(content, BLOCK)
                    whole = Unread(start, content)
                    if member.size < SMALL or self._own >= MAX_FILES:
                        self._append(path, whole)
                    elif is_header(start) and packs(path, member.size):
                        self._packed[path] = packer.pack(whole, self._ingest(CANONICAL), CANONICAL)
                    else:
                        self._keep(path, member, whole)
        if len(read_block(plain, MAX_REST)) == MAX_REST:
            raise InvalidContent(f"{self.name}: it goes on after its end")

    def find(self, name: str) -> str:
        """Return the member that `name` stands for."""
        return follow(self._targets, name, self.name)

    def size(self, name: str) -> int:
        """Return the size of a file in bytes."""
        path = self.find(name)
        packed = self._packed.get(path)
        return packed.layer.size if packed else self._places[path].size

    def open(self, name: str) -> Stream:
        """Open a file."""
        path = self.find(name)
        if packed := self._packed.get(path):
            return Inflated(Section(packed.ingest.file, 0, packed.ingest.size))
        place = self._places[path]
        return Section(place.ingest.file, place.offset, place.size)

    def open_blob(self, name: str, descriptor: Descriptor) -> Blob:
        """Open a file as a blob."""
        path = self.find(name)
        check_size(self.size(path), descriptor)
        place = self._places.get(path)
        if place is None or not place.whole:
            return Blob(self.open(path), descriptor)
        return Blob(self.open(path), descriptor, place.ingest.file, place.ingest)

    def packed(self, name: str) -> Packed | None:
        """Return a file that was compressed on the way."""
        return self._packed.get(self.find(name))

    def close(self) -> None:
        """Discard what was not committed."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ingest(self, algorithm: str) -> Ingest:
        self._own += 1
        return self._stack.enter_context(self._pool.ingest(algorithm))

    def _keep(self, path: str, member: Member, content: Stream) -> None:
        ingest = self._ingest(_algorithm(path))
        while data := content.read(READ_SIZE):
            ingest.write(data)
        self._places[path] = _Place(ingest, 0, ingest.size, whole=True)

    def _append(self, path: str, content: Stream) -> None:
        if self._shared is None:
            self._shared = self._ingest(CANONICAL)
        offset = self._shared.size
        while data := content.read(READ_SIZE):
            self._shared.write(data)
        size = self._shared.size - offset
        self._places[path] = _Place(self._shared, offset, size, whole=False)


class _Watched:
    """A stream that tells how much of it was read."""

    def __init__(self, stream: Stream, watch: Watch) -> None:
        self._stream = stream
        self._watch = watch
        self._done = 0

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self._done += len(data)
        self._watch(self._done)
        return data

    def close(self) -> None:
        self._stream.close()


@contextmanager
def open_archive(
    path: Path | None,
    pool: BlobStore,
    *,
    links: bool,
    packs: Packs,
    watch: Watch = unwatched,
) -> Generator[Archive]:
    """Open an archive, or standard input; a regular file is read in place unless compressed.

    Raises:
        InvalidContent: it is no archive, or has members that could not be unpacked safely.
    """
    with ExitStack() as stack:
        name = str(path) if path else "standard input"
        if path is None and sys.stdin is None:
            raise InvalidContent(f"{name} is closed")
        stream = stack.enter_context(path.open("rb")) if path else sys.stdin.buffer
        if stream.isatty():
            raise InvalidContent(
                f"{name} is a terminal: pipe an archive in, such as `docker save`'s"
            )
        file = _plain_file(stream)
        if file is not None:
            yield ArchiveFile.of(file, name, links=links)
            return
        spool = stack.enter_context(Spool(name, pool))
        spool.fill(stream, links=links, packs=packs, watch=watch)
        yield spool


def _plain_file(stream: BinaryIO) -> int | None:
    """Return the descriptor of a regular file that is not compressed, at its start."""
    try:
        file = stream.fileno()
    except OSError:  # a stream in memory has none
        return None
    status = os.fstat(file)
    if stat.S_ISFIFO(status.st_mode):
        with suppress(OSError):  # of many pipes that are larger than usual
            fcntl.fcntl(file, fcntl.F_SETPIPE_SZ, READ_SIZE)
    if not stat.S_ISREG(status.st_mode) or stream.tell() > 0:
        return None
    return None if form_of(os.pread(file, BLOCK, 0)) else file


def _algorithm(path: str) -> str:
    """Return what a blob of an image layout is named by."""
    folder, _, name = path.rpartition("/")
    algorithm = folder.removeprefix(f"{BLOBS}/")
    return algorithm if is_encoded(algorithm, name) else CANONICAL
