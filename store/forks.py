"""Work shared out among processes: 100,000 directories keep a processor busy for 20 seconds."""

from __future__ import annotations

import os
import pickle
import select
import signal
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import NoReturn, TypeVar, cast

FEW = 256  # items that one process has done before another has started

_LENGTH = 4  # bytes before each message, which say how long it is
_RESULT, _ERROR, _END = range(3)
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # that may raise in the parent

T = TypeVar("T")
R = TypeVar("R")


def processors() -> int:
    """Return how many processes can run at once."""
    return len(os.sched_getaffinity(0))


def spread(
    items: Sequence[T],
    work: Callable[[Sequence[T]], Iterator[R]],
    count: int | None = None,
) -> Generator[R]:
    """Yield what `work` yields for all items, in any order, from `count` processes.

    Each is a copy of this one that does a part of the items, so that what it notes is lost but
    for what it yields, which is pickled. It may read, but not hold locks or write. Ask for the
    next result soon: meanwhile they wait. All have ended when the iterator has, or is closed.

    Raises:
        ChildProcessError: a process ended before its work did, such as without memory.
    """
    count = count or processors()
    children: dict[int, int] = {}  # process ids, by what to read from
    try:
        for first in range(min(count, len(items))):
            source, child = _start(work, items[first::count])
            children[source] = child
        for result in _results(children):
            yield cast("R", result)
    finally:
        for source, child in children.items():
            os.close(source)
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(child, 0)


def _start(work: Callable[[Sequence[T]], Iterator[R]], items: Sequence[T]) -> tuple[int, int]:
    """Return what to read a new process's messages from, and its id."""
    source, sink = os.pipe2(os.O_CLOEXEC)
    try:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # no handler's exception there
        try:
            child = os.fork()
            if child == 0:
                _run(work, items, sink, before)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    except BaseException:
        os.close(source)
        raise
    finally:
        os.close(sink)
    return source, child


def _results(children: dict[int, int]) -> Iterator[object]:
    poll = select.poll()
    for source in children:
        poll.register(source, select.POLLIN)
    left = set(children)
    while left:
        for source, _ in poll.poll():
            kind, value = _receive(source, children[source])
            if kind == _ERROR:
                raise cast("Exception", value)
            if kind == _END:
                poll.unregister(source)
                left.remove(source)
            else:
                yield value


def _receive(source: int, child: int) -> tuple[int, object]:
    length = int.from_bytes(_read(source, _LENGTH, child))
    raw = _read(source, length, child)
    return cast("tuple[int, object]", pickle.loads(raw))  # noqa: S301  # of our own making


def _read(source: int, size: int, child: int) -> bytes:
    parts: list[bytes] = []
    while size:
        part = os.read(source, size)
        if not part:
            raise ChildProcessError(f"process {child} ended before its work did")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _run(
    work: Callable[[Sequence[T]], Iterator[R]],
    items: Sequence[T],
    sink: int,
    mask: Iterable[int],
) -> NoReturn:
    """Work, send what comes of it, and end without a trace: no block of the parent's is left."""
    try:
        for signum in _SIGNALS:
            signal.signal(signum, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        try:
            for result in work(items):
                _send(sink, (_RESULT, result))
        except Exception as error:  # whatever it is: the parent's to judge
            _send(sink, (_ERROR, error))
        else:
            _send(sink, (_END, None))
    finally:
        os._exit(0)  # the parent goes by the last message


def _send(sink: int, message: tuple[int, object]) -> None:
    raw = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    left = memoryview(len(raw).to_bytes(_LENGTH) + raw)
    while left:
        left = left[os.write(sink, left) :]
