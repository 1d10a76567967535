"""The threads of a copy, or of several that share a limit and end together when interrupted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

GRACE = 0.5  # seconds that interrupted threads have to end
TICK = 0.2  # seconds; a signal that comes just before a thread begins to wait does not wake it


class Stopped(Exception):
    """Another thread failed or was interrupted, so this one need not go on."""


class Crew:
    """At most `jobs` blobs under way at once, over all copies that have the same crew.

    Thread-safe.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self._slots = threading.Semaphore(jobs)
        self._changed = threading.Condition()
        self._interrupted = False

    @property
    def slot(self) -> AbstractContextManager[object]:
        """What to hold while a blob is under way."""
        return self._slots

    @property
    def interrupted(self) -> bool:
        """Whether all threads should end."""
        return self._interrupted

    def work(self, parts: Sequence[Callable[[], None]], *, grace: float = GRACE) -> None:
        """Do each part, which must not raise, in a thread of its own, and wait for all.

        What is raised while waiting, such as KeyboardInterrupt, interrupts the whole
        crew. A thread that then takes longer than `grace` seconds to end, since it
        waits for a peer, is left behind: it does not keep the process alive.

        Raises:
            Stopped: another thread that waits in this method was interrupted.
        """
        left = len(parts)

        def run(part: Callable[[], None]) -> None:
            nonlocal left
            try:
                part()
            finally:
                with self._changed:
                    left -= 1
                    self._changed.notify_all()

        try:
            for part in parts:
                threading.Thread(target=run, args=(part,), name="copy", daemon=True).start()
            with self._changed:
                while not self._changed.wait_for(lambda: left == 0 or self._interrupted, TICK):
                    pass
        except BaseException:
            with self._changed:
                self._interrupted = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: left == 0, grace)
            raise
        with self._changed:
            if self._interrupted:
                self._changed.wait_for(lambda: left == 0, grace)
                raise Stopped
