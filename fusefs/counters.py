"""What became of content since a store was mounted: blobs and bytes, for a status."""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Amount:
    """Some files."""

    files: int = 0
    size: int = 0  # bytes of all of them


class Counters:
    """Counters of one mount. Thread-safe.

    Attributes:
        cached_reads: reads that the page cache of the disk below answered at once.
        disk_reads: other ones. Only the event loop changes these two.
    """

    KINDS = ("committed", "present", "saved", "refused")

    def __init__(self) -> None:
        self.cached_reads = 0
        self.disk_reads = 0
        self._lock = threading.Lock()
        self._amounts: dict[str, Amount] = {kind: Amount() for kind in self.KINDS}

    def add(self, kind: str, size: int) -> None:
        """Count a file: a blob that was `committed`, or written though it was `present`.

        Or one that was `saved`, since an index mentions what nobody wrote; or `refused`.
        """
        with self._lock:
            before = self._amounts[kind]
            self._amounts[kind] = Amount(before.files + 1, before.size + size)

    def __getitem__(self, kind: str) -> Amount:
        return self._amounts[kind]
