"""What clients were told is there, kept until they have mentioned it in an index."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from ..oci.digest import Digest
from ..store.leases import DURATION, Leases

_FEW = 4096


class Promises:
    """Leases of one mount. Thread-safe; whatever may wait for the disk is for worker threads.

    Without `leases` none are made: of who may only read, nobody is told that they may mention.
    """

    def __init__(self, leases: Leases | None) -> None:
        self._owner = leases.owner() if leases else None
        self._lock = threading.Lock()
        self._made: dict[Digest, float] = {}  # when
        self._kept = _FEW  # how many there were when the others were last thrown away

    def is_kept(self, digest: Digest) -> bool:
        """Tell whether a promise is fresh enough for another look: less than half of its time."""
        return self.rest(digest) > 0

    def rest(self, digest: Digest) -> float:
        """Return for how many seconds a promise is fresh enough; 0 if it is not, or never was."""
        if self._owner is None:
            return DURATION / 2
        made = self._made.get(digest)
        return 0.0 if made is None else max(0.0, made + DURATION / 2 - time.monotonic())

    def make(self, digests: Iterable[Digest]) -> None:
        """Let garbage collection keep these blobs from now on, for an hour.

        Raises:
            OSError: the disk is full, or the store may only be read.
            Busy: garbage collection kept the leases for too long.
        """
        new = [digest for digest in digests if not self.is_kept(digest)]
        if new and self._owner is not None:
            self._owner.take(new)
            with self._lock:
                self._made.update(dict.fromkeys(new, time.monotonic()))
                if len(self._made) > 2 * self._kept:
                    self._made = {d: made for d, made in self._made.items() if self.is_kept(d)}
                    self._kept = max(_FEW, len(self._made))

    def end(self) -> None:
        """Take all promises back: the mount is gone."""
        if self._owner is not None:
            self._owner.close()
