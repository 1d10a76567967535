"""Calls that worker threads make for requests, and whether such a thread gets on."""

from __future__ import annotations

import errno
import os
import platform
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import trio

Result = TypeVar("Result")

# system calls in which a thread waits for another one, and for neither disk nor network
_LOCKED = {"x86_64": {202}, "aarch64": {98}}.get(platform.machine(), set[int]())  # futex
# ... and others that do not wait for a disk: sleeps, polls, sockets, children
_IDLE = {
    "x86_64": {7, 23, 34, 35, 42, 43, 45, 47, 61, 128, 230, 232, 247, 270, 271, 281, 288},
    "aarch64": {22, 72, 73, 95, 101, 115, 137, 202, 203, 207, 212, 242, 260},
}.get(platform.machine(), set[int]())


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A call under way in a worker thread.

    Attributes:
        task: that waits for it.
        thread: its number in the system.
    """

    task: trio.lowlevel.Task
    thread: int
    name: str


class NoThread(BlockingIOError):
    """The system lets us start no thread, so that a call was not made."""

    def __init__(self) -> None:
        super().__init__(errno.EAGAIN, "no thread can be started")


async def in_thread(
    call: Callable[..., Result],
    *args: object,
    limiter: trio.CapacityLimiter | None = None,
    abandon: bool = False,
) -> Result:
    """Make a call in a worker thread; `abandon` waits no more for it when it is cancelled.

    Raises:
        NoThread: there are too many.
    """
    is_begun = False

    def begin() -> Result:
        nonlocal is_begun
        is_begun = True
        return call(*args)

    try:
        return await trio.to_thread.run_sync(begin, limiter=limiter, abandon_on_cancel=abandon)
    except RuntimeError as error:
        if is_begun:
            raise
        raise NoThread from error


class Calls:
    """Calls under way. Thread-safe."""

    def __init__(self) -> None:
        self._under_way: set[Call] = set()

    def make(self, task: trio.lowlevel.Task, call: Callable[..., Result], *args: object) -> Result:
        """Make a call in this worker thread, for which a task waits."""
        name = getattr(call, "__qualname__", repr(call))
        noted = Call(task, threading.get_native_id(), name)
        self._under_way.add(noted)
        try:
            return call(*args)
        finally:
            self._under_way.discard(noted)

    def all(self) -> list[Call]:
        """Return the calls under way."""
        return list(self._under_way)

    def of(self, task: trio.lowlevel.Task) -> Call | None:
        """Return the call that a task waits for."""
        return next((call for call in self.all() if call.task is task), None)


@dataclass(frozen=True, slots=True)
class Doing:
    """What a thread of this process is doing at one moment.

    Attributes:
        state: R, S, D, … as in /proc/<thread>/stat; empty if there is no such thread.
        system_call: the number of the system call in which it waits; -1 if that is unknown.
        ticks: of the processor that it has used.
    """

    state: str
    system_call: int
    ticks: int

    @classmethod
    def of(cls, thread: int) -> Doing:
        """Look at a thread."""
        directory = Path(f"/proc/self/task/{thread}")
        try:
            _, _, rest = (directory / "stat").read_text().rpartition(") ")
            fields = rest.split()
            state, ticks = fields[0], int(fields[11]) + int(fields[12])
        except (OSError, ValueError, IndexError):
            return cls("", -1, 0)
        try:
            number = int((directory / "syscall").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            number = -1  # it runs, or nobody may look
        return cls(state, number, ticks)

    @property
    def is_locked(self) -> bool:
        """Tell whether it waits for another thread."""
        return self.state == "S" and self.system_call in _LOCKED

    @property
    def is_at_the_disk(self) -> bool:
        """Tell whether it waits in a system call on files: a slow disk, or one that is gone."""
        known = self.system_call >= 0 and bool(_IDLE)
        return self.state == "D" or (
            self.state == "S" and known and self.system_call not in _LOCKED | _IDLE
        )

    def __str__(self) -> str:
        where = f" in system call {self.system_call}" if self.system_call >= 0 else ""
        return f"state {self.state or '?'}{where}, {self.ticks / os.sysconf('SC_CLK_TCK'):.1f} s"
