"""Files that clients open, which may wait for the network until the client is interrupted."""

from __future__ import annotations

import errno
import itertools
import os
import re
from collections.abc import Awaitable
from pathlib import Path

import trio

from ..handles import Opened

_LOOK = 0.25  # seconds between two looks at clients that wait
_MASKS = re.compile(r"^(\w+):\t([0-9a-f]{16})$", re.MULTILINE)  # of /proc/<thread>/status


class Openings:
    """What is being opened. Nothing else can be interrupted: what is written is not left half done.

    An engine that hears of interruptions calls `interrupt`, any other runs `look`. Lives on the
    event loop.
    """

    def __init__(self) -> None:
        self._under_way: dict[int, tuple[trio.CancelScope, int]] = {}
        self._numbers = itertools.count(-1, -1)
        self._begun = trio.lowlevel.ParkingLot()

    async def finish(
        self, opening: Awaitable[Opened], *, thread: int = 0, number: int | None = None
    ) -> Opened:
        """Open for a client's thread; `number` is for `interrupt`.

        Raises:
            OSError: EINTR: it was interrupted.
        """
        key = next(self._numbers) if number is None else number
        with trio.CancelScope() as scope:
            self._under_way[key] = scope, thread
            self._begun.unpark()
            try:
                return await opening
            finally:
                del self._under_way[key]
        raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))

    def interrupt(self, number: int) -> None:
        """Let a client wait no more, if it still does."""
        if number in self._under_way:
            self._under_way[number][0].cancel()

    async def look(self) -> None:
        """Interrupt, from now on, whom a signal waits for."""
        while True:
            if not self._under_way:
                await self._begun.park()
            await trio.sleep(_LOOK)
            for scope, thread in self._under_way.values():
                if is_interrupted(thread):
                    scope.cancel()


def is_interrupted(thread: int) -> bool:
    """Tell whether a signal waits for a thread that sleeps in a system call of ours.

    The kernel tells us of interruptions in a way that pyfuse3 does not pass on, and lets even a
    client that was killed wait for our answer.
    """
    try:
        status = Path(f"/proc/{thread}/status").read_text(errors="replace")
    except OSError:
        return False  # of another PID namespace, or none
    masks = {name: int(mask, 16) for name, mask in _MASKS.findall(status)}
    pending = masks.get("SigPnd", 0) | masks.get("ShdPnd", 0)
    return bool(pending & ~masks.get("SigBlk", 0) & ~masks.get("SigIgn", 0))
