"""Layers as tar archives, whose files are read when the archive is."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from ...oci.errors import InvalidContent
from ...publish.source import Stream
from ...store.reading import READ_SIZE
from ..golang.tar import BLOCK, SOCKET, Entry, entry_size, header

END = bytes(2 * BLOCK)


class Contents(Protocol):
    """Where the contents of entries are read. Not thread-safe."""

    def open(self, name: bytes) -> int:
        """Open the regular file that the entry of this name stands for; the caller closes it.

        Raises:
            OSError: it is gone, or something else now.
        """
        ...

    def close(self) -> None:
        """Free what is behind it."""
        ...


@dataclass(frozen=True, slots=True)
class LayerTar:
    """A layer that is ready to be read, any number of times. Thread-safe.

    Attributes:
        id: what messages call the layer.
        entries: in their order.
        contents: opens what the contents are read from.
        size: of the whole archive, in bytes.
    """

    id: str
    entries: tuple[Entry, ...] = field(repr=False)
    contents: Callable[[], Contents] = field(repr=False, compare=False)
    size: int

    @classmethod
    def of(
        cls, id: str, entries: Iterable[Entry], contents: Callable[[], Contents] | None = None
    ) -> LayerTar:
        """Return the layer of these entries; without `contents` none may have a size."""
        entries = tuple(entry for entry in entries if entry.kind != SOCKET)
        size = sum(map(entry_size, entries)) + len(END)
        return cls(id, entries, contents or Nothing, size)

    def open(self) -> Stream:
        """Start reading; the caller closes it.

        The header of a file was fixed when its layer was made. A file that is longer now is cut.
        A read raises InvalidContent when it comes to a file that is shorter, and OSError when it
        comes to one that cannot be opened.
        """
        return _Archive(self.entries, self.contents())


class Nothing:
    """The contents of entries that have none."""

    def open(self, name: bytes) -> int:
        """Refuse; nothing asks for that."""
        raise FileNotFoundError(name)

    def close(self) -> None:
        """Do nothing."""


class _Archive:
    """The bytes of the archive."""

    def __init__(self, entries: Iterable[Entry], contents: Contents) -> None:
        self._contents = contents
        self._pieces = self._all(entries)
        self._room = 0  # bytes that the next piece of a file may have
        self._left = b""  # of a piece that was too long

    def read(self, size: int, /) -> bytes:
        """Return `size` bytes, and fewer only at the end."""
        parts = [self._left[:size]]
        self._left = self._left[size:]
        size -= len(parts[0])
        while size > 0:
            self._room = size
            piece = next(self._pieces, None)
            if piece is None:
                break
            parts.append(piece)
            size -= len(piece)
        if size < 0:
            parts[-1], self._left = parts[-1][:size], parts[-1][size:]
        return b"".join(parts)

    def close(self) -> None:
        """Close the file that is being read, and what files are opened with."""
        self._pieces.close()
        self._contents.close()

    def _all(self, entries: Iterable[Entry]) -> Generator[bytes]:
        for entry in entries:
            yield header(entry)
            if entry.size:
                yield from self._content(entry)
                yield bytes(-entry.size % BLOCK)
        yield END

    def _content(self, entry: Entry) -> Generator[bytes]:
        file = self._contents.open(entry.name)
        missing = entry.size
        try:
            while missing and (data := os.read(file, min(missing, self._room, READ_SIZE))):
                missing -= len(data)
                yield data
        except OSError as error:
            error.filename = os.fsdecode(entry.name)
            raise
        finally:
            os.close(file)
        if missing:
            end = entry.size - missing
            name = os.fsdecode(entry.name)
            raise InvalidContent(f"{name} had {entry.size} bytes and ends at {end} now")
