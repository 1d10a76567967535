"""A thread that notices when a mount does not get on, says why, and ends it if that is of use."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Self

import trio

from ..calls import Doing
from ..filesystem import FileSystem
from ..requests import Request
from .causes import Cause, Causes
from .dump import state

log = logging.getLogger(__name__)

_MANY = 32  # requests under way at once; an engine may read no more while they wait


class Watchdog:
    """Watches one mount from a thread of its own, in a `with` block of the main thread.

    What took longer than `patience` is reported once: an error with the mount's state if it is a
    bug, a warning if it waits for a disk, nothing if for the network. A bug that lasts twice as
    long makes it call `abort`, which must end the process; so does an end of the mount that
    takes that long. Time in which this process was stopped does not count, nor do changes of
    the clock. SIGUSR1 logs the state.

    Attributes:
        is_bug_known: a request met an exception that nobody foresaw, and that was logged.
    """

    def __init__(
        self, filesystem: FileSystem, patience: float, abort: Callable[[], object]
    ) -> None:
        self.is_bug_known = False
        self._filesystem = filesystem
        self._patience = patience
        self._abort = abort
        self._causes = Causes(filesystem.calls)
        self._period = patience / 4
        self._woken = threading.Event()
        self._is_over = False
        self._is_asked = False
        self._loop = threading.get_native_id()
        self._loop_ticks = 0
        self._token: trio.lowlevel.TrioToken | None = None
        self._device = -1  # of /dev/fuse, where requests come from
        self._unread: float | None = None  # since when a request waits there and none is read
        self._begun = 0  # requests, at the last look
        self._ending: float | None = None  # when the end began, on our clock
        self._clock = 0.0  # seconds in which this process could have done something
        self._turned: float | None = None  # when the loop was asked for a sign of life
        self._seen: dict[Request, float] = {}
        self._judged: dict[Request, Cause] = {}
        self._reported: dict[object, Cause] = {}
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._filesystem.requests.on_bug = self._report_bug
        self._before = signal.signal(signal.SIGUSR1, self._ask)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGUSR1, self._before)  # first: it would wait for the event below
        self._is_over = True
        self._woken.set()
        self._thread.join()

    @contextmanager
    def watching_loop(self) -> Generator[None]:
        """Watch the event loop for the block, which runs on it, while the store is mounted."""
        self._token = trio.lowlevel.current_trio_token()
        self._device = _device()
        try:
            yield
        finally:
            self._token = self._turned = None
            self._device = -1

    def expect_end(self) -> None:
        """Expect the mount to end from now on."""
        if self._ending is None:
            self._ending = self._clock

    def _ask(self, _: int, __: FrameType | None) -> None:
        self._is_asked = True
        self._woken.set()

    def _run(self) -> None:
        try:
            self._watch()
        except BaseException:  # such as MemoryError
            try:
                log.exception("nobody watches the mount any more: ending it by force")
            finally:
                self._abort()

    def _watch(self) -> None:
        last = time.monotonic()
        while not self._is_over:
            self._woken.wait(self._period)
            self._woken.clear()
            if self._is_asked:
                self._is_asked = False
                log.warning("asked for the state of the mount", extra=self._dump())
            now = time.monotonic()
            # if this thread was late, so was everybody: the process was stopped, or starved
            self._clock += min(now - last, 2 * self._period)
            last = now
            if not self._is_over:
                self._look()

    def _look(self) -> None:
        if self._ending is not None and self._clock - self._ending > 2 * self._patience:
            log.error("the mount does not end", extra=self._dump())
            self._give_up()
        self._look_at_loop()
        if "loop" in self._reported:
            self._unread = None
        else:
            self._look_at_device()
            self._look_at_requests()
        self._causes.look()

    def _look_at_loop(self) -> None:
        asked, token = self._turned, self._token
        doing = Doing.of(self._loop)
        ticks, self._loop_ticks = self._loop_ticks, doing.ticks
        if asked is None:
            self._reported.pop("loop", None)
            if token is not None:
                self._turned = self._clock
                with contextlib.suppress(trio.RunFinishedError):
                    token.run_sync_soon(self._note_turn, idempotent=True)
            return
        waited = self._clock - asked
        if waited < self._patience:
            return
        cause = Cause.DISK if doing.is_at_the_disk and ticks == doing.ticks else Cause.NOTHING
        self._report("loop", cause, f"the event loop did not turn for {waited:.1f} s ({doing})")
        if cause.is_bug and waited > 2 * self._patience:
            self._give_up()

    def _note_turn(self) -> None:
        self._turned = None

    def _look_at_device(self) -> None:
        """Notice when an event loop that turns does not read what the kernel has for it."""
        requests = self._filesystem.requests
        answered = sum(times.count for times in list(requests.latencies.values()))
        under_way = len(requests.under_way)
        before, self._begun = self._begun, answered + under_way
        if before != self._begun or under_way >= _MANY or not _is_readable(self._device):
            self._unread = None
            self._reported.pop("device", None)
            return
        self._unread = self._clock if self._unread is None else self._unread
        waited = self._clock - self._unread
        if waited >= self._patience:
            self._report("device", Cause.NOTHING, f"no request was read for {waited:.1f} s")
        if waited > 2 * self._patience:
            self._give_up()

    def _look_at_requests(self) -> None:
        waiting = self._filesystem.requests.waiting()
        self._seen = {request: self._seen.get(request, self._clock) for request in waiting}
        self._judged = {
            request: self._judged[request] for request in waiting if request in self._judged
        }
        for key in [key for key in self._reported if isinstance(key, Request)]:
            if key not in self._seen and self._reported.pop(key) is not Cause.NETWORK:
                log.info("%s was answered", key)
        for request in waiting:
            waited = self._clock - self._seen[request]
            if waited < self._patience:
                return
            cause, before = self._causes.of(request.task), self._judged.get(request)
            self._judged[request] = cause
            if cause is before:  # it may just have been going on
                self._report(request, cause, f"{request} was not answered for {waited:.1f} s")
                if cause.is_bug and waited > 2 * self._patience:
                    self._give_up()

    def _report(self, key: object, cause: Cause, words: str) -> None:
        if self._reported.get(key) is cause:
            return
        self._reported[key] = cause
        words = f"{words}: waits for {cause.value}"
        if cause.is_bug:
            log.error("%s", words, extra=self._dump())
        elif cause is not Cause.NETWORK:
            log.warning("%s", words)

    def _report_bug(self, request: Request, error: Exception) -> None:
        if self.is_bug_known:
            return  # others may meet it, too, until the mount has ended
        self.is_bug_known = True
        self.expect_end()
        log.error("%s: a bug ends the mount", request, exc_info=error, extra=self._dump())

    def _give_up(self) -> None:
        log.error("ending the mount by force")
        self._abort()

    def _dump(self) -> dict[str, str]:
        return {"state": state(self._filesystem)}


def _device() -> int:
    """Return this process's descriptor of /dev/fuse, of which it has one; -1 if that is unknown."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the directory's own
            if os.readlink(f"/proc/self/fd/{name}") == "/dev/fuse":
                return int(name)
    return -1


def _is_readable(device: int) -> bool:
    """Tell whether the kernel has a request that nobody has read."""
    if device < 0:
        return False
    poll = select.poll()
    poll.register(device, select.POLLIN)
    return poll.poll(0) == [(device, select.POLLIN)]  # and no error: it is unmounted
