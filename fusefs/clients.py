"""Clients that wait for an answer: what they are about to do with it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TypeVar

import trio

from .calls import NoThread, in_thread
from .contents import Content, Name
from .intent import Callers, makes_new_name, opened_name
from .tree import Node

_PATIENCE = 5.0  # seconds to read a client's memory, which may be swapped out
_OBSERVERS = 2  # threads, apart from those for the disk: they may wait for what these do

Result = TypeVar("Result")


class Clients:
    """What procfs says of clients' threads. Lives on the event loop, for which it never waits."""

    def __init__(self) -> None:
        self._callers = Callers()
        self._threads = trio.CapacityLimiter(_OBSERVERS)

    def may_make(self, thread: int) -> bool:
        """Tell whether a thread may be about to make a name, and to fail if it exists."""
        return self._callers.may_make(thread)

    async def make(self, thread: int, parent: Node[Content], name: bytes) -> bool:
        """Tell whether a thread is about to make this name; False if nobody can tell."""
        return await self._observe(makes_new_name, thread, parent.path, name) or False

    async def opened_name(self, node: Node[Content], thread: int) -> Name | None:
        """Return by which of its names a client opens a node; None if nobody can tell.

        A blob is one inode in all layouts, and OPEN says nothing more.
        """
        names: dict[bytes, Name] = {}
        for (_, name), parent in node.names.items():
            with contextlib.suppress(OSError):  # that directory is gone, and not yet forgotten
                names[parent.child(name)] = parent, name
        paths = list(names)
        index = await self._observe(opened_name, thread, paths) if len(paths) > 1 else 0
        return names[paths[index]] if paths and index is not None else None

    def close(self) -> None:
        """Let go of all threads."""
        self._callers.close()

    async def _observe(self, look: Callable[..., Result], *args: object) -> Result | None:
        """Look at a client, which may need our answers meanwhile; None when that takes long."""
        with trio.move_on_after(_PATIENCE), contextlib.suppress(NoThread):
            return await in_thread(look, *args, limiter=self._threads, abandon=True)
        return None
