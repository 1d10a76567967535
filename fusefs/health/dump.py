"""The state of a mount as text, for whoever must find out why it does not go on.

Names, numbers and stacks; no content of files, no values of variables.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice

from ..filesystem import FileSystem
from .causes import frames

_LOOKS = 10
_MOST = 100  # entries of a kind; a mount may have thousands of open files


def state(filesystem: FileSystem) -> str:
    """Return what a mount is doing, line by line. From any thread; waits for nobody."""
    return "\n".join(
        line for look in (_requests, _kept, _threads) for line in _seen(look, filesystem)
    )


def _seen(look: Callable[[FileSystem], Iterator[str]], filesystem: FileSystem) -> list[str]:
    """Look again when the event loop changes something in that moment, as a walk over it notices.

    Whatever it raises then must not end the watchdog, and so the mount.
    """
    for _ in range(_LOOKS):
        with suppress(Exception):
            return list(look(filesystem))
    return ["what changes too fast to be told"]


def _requests(filesystem: FileSystem) -> Iterator[str]:
    requests, now = filesystem.requests.waiting(), time.monotonic_ns()
    yield f"requests under way: {len(requests)}"
    for request in requests[:_MOST]:
        yield f"  {request}, {(now - request.began) / 1e9:.3f} s"
        if request.task is not None:
            yield from _stack(
                traceback.StackSummary.extract(
                    (frame, frame.f_lineno) for frame in frames(request.task)
                )
            )


def _kept(filesystem: FileSystem) -> Iterator[str]:
    calls = filesystem.calls.all()
    yield f"calls in worker threads: {len(calls)}"
    yield from (f"  {call.name} in thread {call.thread}" for call in calls)
    for title, entries in filesystem.describe():
        listed = list(entries)
        yield f"{title}: {len(listed)}"
        yield from (f"  {entry}" for entry in islice(listed, _MOST))


def _threads(_: FileSystem) -> Iterator[str]:
    names = {thread.ident: thread for thread in threading.enumerate()}
    running = sys._current_frames()  # pyright: ignore[reportPrivateUsage] - no public way
    yield f"threads: {len(running)}"
    for ident, frame in running.items():
        thread = names.get(ident)
        yield f"  {thread.name} ({thread.native_id})" if thread else f"  {ident}"
        yield from _stack(traceback.extract_stack(frame))


def _stack(stack: traceback.StackSummary) -> Iterator[str]:
    yield from (f"    {place.filename}:{place.lineno} {place.name}" for place in stack)
