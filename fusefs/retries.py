"""Files that a client looks up again, since others were faster, kept until it opens them.

The kernel tries once more after ESTALE, and no third time: what is found then must not get lost.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

_MOST = 64  # threads, of which the oldest are forgotten
_LOOKUPS = 2  # of a name: the kernel repeats the first when it finds another inode


@dataclass(slots=True)
class _Retry:
    """What a thread looks for: how often it may still do so, and what it found, if anything."""

    left: int = _LOOKUPS
    inode: int = 0
    file: int = -1

    def keep(self, inode: int, file: int) -> None:
        if self.file >= 0:
            os.close(self.file)
        self.inode, self.file = inode, file


class Retries:
    """What clients' threads are about to open for the second time. Lives on the event loop.

    Threads of PID namespaces that we do not see are all 0, and take it from each other.
    """

    def __init__(self) -> None:
        self._retries: dict[int, _Retry] = {}  # by thread

    def is_expected(self, thread: int) -> bool:
        """Tell whether the file that a thread looks up is what it was told ESTALE for."""
        retry = self._retries.get(thread)
        if retry is not None and not retry.left:
            self.end(thread)  # it does something else now
            return False
        return retry is not None

    def keep(self, thread: int, inode: int, file: int) -> None:
        """Keep a descriptor, which is ours to close, for when a thread opens that inode."""
        retry = self._retries[thread]
        retry.left -= 1
        retry.keep(inode, file)

    def end(self, thread: int) -> None:
        """Let go of what is kept for a thread, which does not open it."""
        retry = self._retries.pop(thread, None)
        if retry is not None:
            retry.keep(0, -1)

    @contextmanager
    def opening(self, thread: int, inode: int) -> Generator[int]:
        """Yield what was kept for a thread that opens an inode, for the block; -1 for nothing.

        Expects the thread again when the block raises ESTALE.
        """
        retry = self._retries.pop(thread, None) or _Retry()
        try:
            yield retry.file if retry.inode == inode else -1
        except OSError as error:
            if error.errno == errno.ESTALE:
                self._expect(thread)
            raise
        finally:
            retry.keep(0, -1)

    def close(self) -> None:
        """Let go of everything."""
        for thread in list(self._retries):
            self.end(thread)

    def _expect(self, thread: int) -> None:
        self.end(thread)
        self._retries[thread] = _Retry()
        if len(self._retries) > _MOST:
            self.end(next(iter(self._retries)))
