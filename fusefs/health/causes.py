"""What a request that is not answered yet waits for: a disk, the network, or nothing at all."""

from __future__ import annotations

import enum
import gc
import inspect
from types import FrameType

import trio

from ..calls import Calls, Doing
from ..filling import Filling

_DEEPEST = 100
_FETCHING = inspect.unwrap(Filling.fetch).__code__
_LOCKING = inspect.unwrap(trio.Lock.acquire).__code__
_IN_THREAD = inspect.unwrap(trio.to_thread.run_sync).__code__


class Cause(enum.Enum):
    """Why a request is still under way, for people."""

    NETWORK = "the network"
    DISK = "the disk below"
    THREAD = "a worker thread"
    NOTHING = "nothing that could end it"

    @property
    def is_bug(self) -> bool:
        """Tell whether waiting longer is of no use."""
        return self is Cause.NOTHING


def frames(task: trio.lowlevel.Task) -> list[FrameType]:
    """Return where a task that waits has come to, the outermost first. From any thread.

    Like `Task.iter_await_frames`, which stops at what the C code of pyfuse3 awaits.
    """
    found: list[FrameType] = []
    link: object = task.coro
    while link is not None and len(found) < _DEEPEST:
        frame = getattr(link, "cr_frame", None) or getattr(link, "gi_frame", None)
        if isinstance(frame, FrameType):
            found.append(frame)
        if type(link).__name__ == "coroutine_wrapper":
            link = next(iter(gc.get_referents(link)), None)
        else:
            link = getattr(link, "cr_await", None) or getattr(link, "gi_yieldfrom", None)
    return found


class Causes:
    """Judges tasks of one mount, looking at its worker threads twice.

    For one thread, which is not the event loop's: whose tasks may run on meanwhile, so that a
    judgement counts when it stays the same.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._ticks: dict[int, int] = {}  # of each worker thread, at the last look

    def look(self) -> None:
        """Remember how far worker threads have come."""
        threads = {call.thread for call in self._calls.all()}
        self._ticks = {thread: Doing.of(thread).ticks for thread in threads}

    def of(self, task: trio.lowlevel.Task | None) -> Cause:
        """Return what a task waits for, be it through others."""
        seen: set[trio.lowlevel.Task] = set()
        while task is not None and task not in seen:
            seen.add(task)
            stack = frames(task)
            codes = [frame.f_code for frame in stack]
            if _FETCHING in codes:
                return Cause.NETWORK
            if (call := self._calls.of(task)) is not None:
                return self._of_thread(call.thread)
            if _IN_THREAD in codes:
                return self._of_any_thread()
            task = _holder(stack)
        return Cause.NOTHING

    def _of_any_thread(self) -> Cause:
        """Judge who waits for a free thread, or for one that nobody notes."""
        causes = {self._of_thread(call.thread) for call in self._calls.all()}
        return next((cause for cause in Cause if cause in causes), Cause.THREAD)

    def _of_thread(self, thread: int) -> Cause:
        doing = Doing.of(thread)
        if doing.is_at_the_disk:
            return Cause.DISK
        gets_on = doing.ticks != self._ticks.get(thread)
        return Cause.NOTHING if doing.is_locked and not gets_on else Cause.THREAD


def _holder(stack: list[FrameType]) -> trio.lowlevel.Task | None:
    """Return the task that has the lock for which another waits."""
    for frame in stack:
        if frame.f_code is _LOCKING:
            lock: object = frame.f_locals.get("self")
            return lock.statistics().owner if isinstance(lock, trio.Lock) else None
    return None
