"""A file that a client is still writing: pure over Ingest and a base to start from."""

from __future__ import annotations

import os

from ..oci.digest import Digest
from ..oci.document import MAX_DOCUMENT
from ..oci.errors import InvalidContent
from ..store.ingest import Ingest
from ..store.reading import read_cached
from .places import Place


class Staging:
    """One generation of a file: nobody but its writer sees it until it is settled.

    It begins empty, or as a file that exists and is copied at the first change.
    Not thread-safe; the caller serialises its calls.

    Attributes:
        is_passed: the kernel writes to the file of `ingest` without asking, as long as anybody
            has it open.
    """

    def __init__(self, ingest: Ingest, place: Place, mode: int) -> None:
        self._base = -1
        self._copied = 0  # how many bytes of the base this has; 0 without one
        self._name: Digest | None = None  # of the whole base
        self.ingest = ingest
        self.place = place
        self.mode = mode
        self.handles = 1
        self.is_passed = False
        self.unsettled = True  # content that nobody decided on yet
        self.refusal = ""  # why it was last refused, for one warning when it is given up

    def start_from(self, base: int) -> None:
        """Begin as an open file, which is ours to close; while nothing changes, all is settled."""
        self._base, self._copied = base, os.fstat(base).st_size
        self.unsettled = False

    def expect(self, blob: int, name: Digest) -> None:
        """Look whether what is written first is an open blob again, which is ours to close.

        While it is, nothing is written: to compare takes a third of the time, and no disk.
        """
        self._base, self._name = blob, name

    @property
    def known(self) -> Digest | None:
        """The digest, if this is nothing but the copy of a whole blob."""
        whole = self._base >= 0 and self._copied == os.fstat(self._base).st_size
        return self._name if whole else None

    @property
    def is_copied_next(self) -> bool:
        """Tell whether the next change first copies all of the file that this began as."""
        return self._base >= 0

    @property
    def size(self) -> int:
        """The length of the content in bytes."""
        if self.is_passed:
            return os.fstat(self.ingest.file).st_size
        return self.ingest.size if self._base < 0 else self._copied

    def dup(self) -> int:
        """Return a descriptor of the content so far, which is the first `size` bytes."""
        return os.dup(self.ingest.file if self._base < 0 else self._base)

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`."""
        if self._base < 0:
            return os.pread(self.ingest.file, size, offset)
        return os.pread(self._base, max(0, min(size, self._copied - offset)), offset)

    def write(self, offset: int, data: bytes | memoryview) -> int:
        """Write at `offset`; returns how many bytes, which is all of them."""
        self.unsettled = True
        if self._name is not None and offset == self._copied and self._has_next(data):
            self._copied += len(data)
        else:
            self.fill()
            self.ingest.write_at(offset, data)
        return len(data)

    def _has_next(self, data: bytes | memoryview) -> bool:
        return os.pread(self._base, len(data), self._copied) == bytes(data)

    def take(self, offset: int, data: bytes | memoryview) -> bool:
        """Tell whether `data` is what comes next of what is expected, and then count it as written.

        Never waits for the disk: False also if memory does not have that.
        """
        if self._name is None or offset != self._copied:
            return False
        there = bytearray(len(data))
        if read_cached(self._base, offset, there) != len(data) or not there.startswith(data):
            return False
        self.unsettled = True
        self._copied += len(data)
        return True

    def copy(self, source: int, offset: int, at: int, length: int, name: Digest | None) -> int:
        """Take up to `length` bytes of an open file, whose digest is `name`; returns how many.

        A blob that is copied from its first byte on is only remembered, until something else
        is to be changed.
        """
        if name is not None and not self.is_passed and offset == at == self.size:
            if not at and self._name != name:
                self._drop_base()
                self._base, self._name = os.dup(source), name
            if self._name == name:
                count = max(0, min(length, os.fstat(self._base).st_size - at))
                self._copied += count
                self.unsettled = True
                return count
        self.fill()
        self.unsettled = True
        return self.ingest.copy(source, offset, at, length)

    def truncate(self, length: int) -> None:
        """Cut or extend to `length` bytes."""
        if length:
            self.fill()
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

    def fill(self) -> None:
        """Copy what this has of another file, so that all is in `ingest`."""
        if self._base < 0:
            return
        offset = 0
        while offset < self._copied:
            count = self.ingest.copy(self._base, offset, offset, self._copied - offset)
            if not count:
                raise InvalidContent(f"what was copied ends at byte {offset} of {self._copied}")
            offset += count
        self._drop_base()

    def _drop_base(self) -> None:
        if self._base >= 0:
            os.close(self._base)
        self._base, self._copied, self._name = -1, 0, None
