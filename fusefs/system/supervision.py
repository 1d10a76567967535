"""A parent that starts the server of a mount again when it crashes."""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...oci.errors import OcistowError
from . import libc
from .table import unmount

log = logging.getLogger(__name__)

_LOOK = 0.1  # seconds between two looks for a signal while a server starts
_FORWARDED = {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1}
_ENDING = {signal.SIGTERM, signal.SIGINT}


@dataclass(frozen=True, slots=True)
class Limits:
    """When a server is started again. All times are in seconds.

    Attributes:
        crashes: so many `within` this time are too many.
        first: how long is waited after a crash; three times as long after each further one.
        longest: but never longer.
    """

    crashes: int = 5
    within: float = 600.0
    first: float = 0.1
    longest: float = 30.0


class Supervisor:
    """Keeps a server running at a mount point. Needs the main thread, and no others."""

    def __init__(self, mountpoint: Path, limits: Limits) -> None:
        self._mountpoint = mountpoint
        self._limits = limits
        self._watched = {*_FORWARDED, signal.SIGCHLD}
        self._is_ending = False
        self._was_ready = False

    def supervise(self, ready: Callable[[], None], begin: Callable[[], None]) -> Callable[[], None]:
        """Return in a child process that is to serve, each time there is a new one.

        What it returns is called when the mount can be used. `ready` is called once, in the
        parent, when that was so for the first time, and `begin` in that child. A child ends with
        its parent.

        Raises:
            SystemExit: in the parent, when it is over: with 0, the status of a server that
                said why it cannot be used, or that of the last crash.
        """
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ours may be ignored
        before = signal.pthread_sigmask(signal.SIG_BLOCK, self._watched)
        parent, crashes = os.getpid(), list[float]()
        while True:
            reader, writer = os.pipe()
            child = os.fork()
            if not child:
                os.close(reader)
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
                libc.end_with_parent(signal.SIGTERM)
                if os.getppid() != parent:
                    os._exit(0)
                return lambda: _tell(None if self._was_ready else begin, writer)
            os.close(writer)
            with open(reader, "rb", buffering=0):
                status = self._attend(child, reader, ready)
            is_refusal = not self._was_ready and status < 128
            if status == 0 or self._is_ending or is_refusal:
                raise SystemExit(status)
            now = time.monotonic()
            crashes = [*(when for when in crashes if now - when < self._limits.within), now]
            self._wait(status, len(crashes))

    def _attend(self, child: int, reader: int, ready: Callable[[], None]) -> int:
        """Return the status of a child when it ends, 128 + n for signal n."""
        starting = True
        while True:
            if starting and select.select([reader], [], [], _LOOK)[0]:
                starting = False
                if os.read(reader, 1) and not self._was_ready:
                    self._was_ready = True
                    ready()
            found = signal.sigtimedwait(self._watched, 0 if starting else 3600)
            if found is not None and found.si_signo in _FORWARDED:
                self._forward(child, signal.Signals(found.si_signo))
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code

    def _forward(self, child: int, number: signal.Signals) -> None:
        if number in _ENDING:
            self._is_ending = True
            number = signal.SIGTERM
        os.kill(child, number)

    def _wait(self, status: int, crashes: int) -> None:
        """Wait before the next start, or end.

        Raises:
            SystemExit: there were too many crashes, or we are told to end.
        """
        how = f"signal {status - 128}" if status > 128 else f"status {status}"
        what = f"the server of {self._mountpoint} ended with {how}"
        if crashes >= self._limits.crashes:
            seconds = self._limits.within
            log.error("%s; gave up after %d times in %.0f s", what, crashes, seconds)
            raise SystemExit(status)
        pause = min(self._limits.first * 3 ** (crashes - 1), self._limits.longest)
        log.error("%s; starting another in %.1f s", what, pause)
        if signal.sigtimedwait(_ENDING, pause) is not None:
            with suppress(OcistowError, OSError):  # the dead one, if it is still there
                unmount(self._mountpoint, lazy=True)
            raise SystemExit(0)


def _tell(begin: Callable[[], None] | None, writer: int) -> None:
    if begin is not None:  # else the parent has begun, and this process as a part of it
        begin()
    os.write(writer, b"!")
    os.close(writer)
