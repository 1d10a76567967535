"""A tar archive as a function of the offset: its length and every byte are known beforehand.

So it can be sent with a length, taken up again in the middle, and read in place as if it
were a file. Equal entries make equal bytes: there are no times and no owners in it.
"""

from __future__ import annotations

import tarfile
from bisect import bisect_right
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace

from ...oci.descriptor import Descriptor
from ...oci.digest import CANONICAL, Digest, new_hash
from ...oci.errors import InvalidContent
from ...store.reading import READ_SIZE
from ..source import Source

_END = bytes(2 * tarfile.BLOCKSIZE)


@dataclass(frozen=True, slots=True)
class Entry:
    """A regular file of the archive.

    Attributes:
        size: in bytes.
        content: its bytes, or the blob to be opened for them, which may have another
            size than its descriptor says where the source turns it into something else.
    """

    name: str
    size: int
    content: bytes | Descriptor
    mode: int = 0o644

    @classmethod
    def of(cls, name: str, content: bytes | Descriptor) -> Entry:
        """Return the entry of a document, or of a blob as it is."""
        return cls(name, len(content) if isinstance(content, bytes) else content.size, content)

    def header(self) -> bytes:
        """Return the tar header; a long name or a size from 8 GiB make a pax header precede it."""
        info = tarfile.TarInfo(self.name)
        info.size = self.size
        info.mode = self.mode
        return info.tobuf(tarfile.PAX_FORMAT)


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes from `start` to `stop` of a blob in the archive, which has `size` bytes there."""

    name: str
    blob: Descriptor
    size: int
    start: int
    stop: int


class TarStream:
    """An archive whose blobs are read from `source` when their bytes are asked for.

    It keeps headers and documents in memory. Thread-safe.

    Attributes:
        size: its length in bytes.
    """

    def __init__(self, entries: Iterable[Entry], source: Source) -> None:
        self._source = source
        self._pieces = list(_pieces(entries))
        self._ends: list[int] = []
        self.size = 0
        for piece in self._pieces:
            self.size += _size(piece)
            self._ends.append(self.size)

    def __iter__(self) -> Iterator[bytes]:
        return self.stream()

    def stream(self, offset: int = 0, size: int | None = None) -> Generator[bytes]:
        """Yield the bytes from `offset` on, `size` of them or all; fewer only at the end.

        Of a blob that is no file all that precedes `offset` is read too.

        Raises:
            NotFound: a blob is absent; `name` is its digest.
            InvalidContent: a blob has another size than its entry.
        """
        for piece in self.pieces(offset, size):
            if isinstance(piece, bytes):
                yield piece
            else:
                yield from self._read(piece)

    def pieces(self, offset: int = 0, size: int | None = None) -> Iterator[bytes | Part]:
        """Yield what the bytes from `offset` on consist of; `source` is not asked."""
        limit = self.size if size is None else min(self.size, offset + size)
        first = bisect_right(self._ends, offset)
        for piece, end in zip(self._pieces[first:], self._ends[first:], strict=True):
            if offset >= limit:
                return
            start = end - _size(piece)
            skip, stop = offset - start, min(end, limit) - start
            if isinstance(piece, bytes):
                yield piece[skip:stop]
            else:
                yield replace(piece, start=skip, stop=stop)
            offset = start + stop

    def digest(self) -> Digest:
        """Return a digest of what it consists of, which stands for its bytes and is known at once.

        Archives with the same have the same bytes, wherever those are.
        """
        running = new_hash(CANONICAL)
        for piece in self._pieces:
            data = piece if isinstance(piece, bytes) else str(piece.blob.digest).encode()
            running.update(b"%d:%b" % (len(data), data))
        return Digest(CANONICAL, running.hexdigest())

    def _read(self, part: Part) -> Iterator[bytes]:
        """Yield bytes of a blob, and see that it ends where it shall."""
        with self._source.open(part.blob) as blob:
            blob.skip(part.start)
            at = part.start
            while at < part.stop:
                data = blob.read(min(READ_SIZE, part.stop - at))
                if not data:
                    raise InvalidContent(f"{part.name} ended at byte {at} of {part.size}")
                yield data
                at += len(data)
            if at == part.size and blob.read(1):
                raise InvalidContent(f"{part.name} has more than the announced {at} bytes")


def _pieces(entries: Iterable[Entry]) -> Iterator[bytes | Part]:
    """Yield in turn what is in memory and what is a blob."""
    memory = b""
    for entry in entries:
        memory += entry.header()
        if isinstance(entry.content, bytes):
            memory += entry.content
        else:
            yield memory
            yield Part(entry.name, entry.content, entry.size, 0, entry.size)
            memory = b""
        memory += bytes(-entry.size % tarfile.BLOCKSIZE)
    yield memory + _END


def _size(piece: bytes | Part) -> int:
    return len(piece) if isinstance(piece, bytes) else piece.size
