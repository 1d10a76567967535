"""A file that a client is still writing: pure over Ingest and a base to start from."""

from __future__ import annotations

import os

from ..oci.document import MAX_DOCUMENT
from ..oci.errors import InvalidContent
from ..store.ingest import Ingest
from ..store.reading import READ_SIZE
from .places import Place


class Staging:
    """One generation of a file: nobody but its writer sees it until it is settled.

    It begins empty, or as a file that exists and is copied at the first change.
    Not thread-safe; the caller serialises its calls.
    """

    def __init__(self, ingest: Ingest, place: Place, mode: int) -> None:
        self._base = -1
        self.ingest = ingest
        self.place = place
        self.mode = mode
        self.handles = 1
        self.unsettled = True  # content that nobody decided on yet
        self.refusal = ""  # why it was last refused, for one warning when it is given up

    def start_from(self, base: int) -> None:
        """Begin as an open file, which is ours to close; while nothing changes, all is settled."""
        self._base = base
        self.unsettled = False

    @property
    def is_discarded(self) -> bool:
        """Tell whether the content is gone."""
        return self.ingest.file < 0

    @property
    def is_copied_next(self) -> bool:
        """Tell whether the next change first copies all of the file that this began as."""
        return self._base >= 0

    @property
    def size(self) -> int:
        """The length of the content in bytes."""
        return self.ingest.size if self._base < 0 else os.fstat(self._base).st_size

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`."""
        return os.pread(self.ingest.file if self._base < 0 else self._base, size, offset)

    def write(self, offset: int, data: bytes) -> int:
        """Write at `offset`; returns how many bytes, which is all of them."""
        self._fill()
        self.unsettled = True
        self.ingest.write_at(offset, data)
        return len(data)

    def truncate(self, length: int) -> None:
        """Cut or extend to `length` bytes."""
        if length:
            self._fill()
        self._drop_base()
        self.unsettled = True
        self.ingest.truncate(length)

    def document(self) -> bytes:
        """Return the whole content of something that must be a small JSON document.

        Raises:
            InvalidContent: it is over `MAX_DOCUMENT` bytes.
        """
        if self.size > MAX_DOCUMENT:
            raise InvalidContent(f"{self.size} bytes, at most {MAX_DOCUMENT} are accepted")
        return self.read(0, MAX_DOCUMENT)

    def discard(self) -> None:
        """Let the content go."""
        self._drop_base()
        self.ingest.close()

    def _fill(self) -> None:
        if self._base < 0:
            return
        offset = 0
        while data := os.pread(self._base, READ_SIZE, offset):
            self.ingest.write_at(offset, data)
            offset += len(data)
        self._drop_base()

    def _drop_base(self) -> None:
        if self._base >= 0:
            os.close(self._base)
            self._base = -1
