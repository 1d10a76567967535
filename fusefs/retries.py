"""Files that a client looks up again, since others were faster, kept until it opens them.

The kernel tries once more after ESTALE, and no third time: what is found then must not get lost.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager

_MOST = 64  # threads, of which the oldest are forgotten


class Retries:
    """What clients' threads are about to open for the second time. Lives on the event loop.

    Threads of PID namespaces that we do not see are all 0, and take it from each other.
    """

    def __init__(self) -> None:
        self._kept: dict[int, tuple[int, int]] = {}  # by thread: an inode, and a descriptor or -1

    def are_expected(self, thread: int) -> bool:
        """Tell whether a thread was told ESTALE, and has not opened anything since."""
        return thread in self._kept

    def keep(self, thread: int, inode: int, file: int) -> None:
        """Keep a descriptor, which is ours to close, for when a thread opens that inode."""
        self._drop(thread)
        self._kept[thread] = inode, file
        if len(self._kept) > _MOST:
            self._drop(next(iter(self._kept)))

    @contextmanager
    def opening(self, thread: int, inode: int) -> Generator[int]:
        """Yield what was kept for a thread that opens an inode, for the block; -1 for nothing."""
        known, file = self._kept.get(thread, (0, -1))
        if known == inode:
            del self._kept[thread]
        try:
            yield file if known == inode else -1
        except OSError as error:
            if error.errno == errno.ESTALE:
                self.keep(thread, 0, -1)
            raise
        finally:
            if known == inode and file >= 0:
                os.close(file)

    def close(self) -> None:
        """Let go of everything."""
        while self._kept:
            self._drop(next(iter(self._kept)))

    def _drop(self, thread: int) -> None:
        _, file = self._kept.pop(thread, (0, -1))
        if file >= 0:
            os.close(file)
