"""What became of content since a store was mounted: blobs and bytes, for a status."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

_MOST = 10_000  # blobs that were saved, of which the oldest are forgotten


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
        self._saved: OrderedDict[bytes, None] = OrderedDict()

    def add(self, kind: str, size: int, path: bytes | None = None) -> None:
        """Count a file: a blob that was `committed`, or written though it was `present`.

        Or one that was `saved`, since an index mentions what nobody wrote; or `refused`. What is
        saved and then written all the same, as cp does after the index, was not saved; that is
        told by its path.
        """
        with self._lock:
            if path is not None and path in self._saved:
                del self._saved[path]
                self._change("saved", -1, -size)
            self._change(kind, 1, size)
            if path is not None and kind == "saved":
                self._saved[path] = None
                if len(self._saved) > _MOST:
                    self._saved.popitem(last=False)

    def _change(self, kind: str, files: int, size: int) -> None:
        before = self._amounts[kind]
        self._amounts[kind] = Amount(before.files + files, before.size + size)

    def __getitem__(self, kind: str) -> Amount:
        return self._amounts[kind]
