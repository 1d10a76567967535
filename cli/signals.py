"""SIGINT and SIGTERM while images are copied: exceptions, and soon the end of the process."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

from .exits import INTERRUPTED, TERMINATED

PATIENCE = 1.5  # seconds until the process ends, whatever a thread is busy with

_last_word = threading.Lock()


class Terminated(BaseException):
    """SIGTERM came."""


@contextmanager
def ending_soon() -> Generator[None]:
    """Raise KeyboardInterrupt or `Terminated` in the block, which the main thread runs.

    What is not undone after `PATIENCE`, since a layer is being compressed or a peer does not
    answer, is left to be found undone after a crash, and the process ends.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    if before[signal.SIGINT] is signal.default_int_handler:  # not ignored, as by `nohup`
        signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def ending_whole() -> Generator[None]:
    """Raise KeyboardInterrupt or `Terminated` in the block, which undoes all, however long."""

    def terminate(_: int, __: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def has_last_word() -> bool:
    """Tell, to the first who asks, that it is theirs to say how this process ended."""
    return _last_word.acquire(blocking=False)


def _interrupt(_: int, __: FrameType | None) -> None:
    _end_after(INTERRUPTED, "interrupted")
    raise KeyboardInterrupt


def _terminate(_: int, __: FrameType | None) -> None:
    _end_after(TERMINATED, "terminated")
    raise Terminated


def _end_after(status: int, word: str) -> None:
    def end() -> None:
        if has_last_word():
            sys.stderr.write(f"\nocistow: {word}\n")
            sys.stderr.flush()
        os._exit(status)

    timer = threading.Timer(PATIENCE, end)
    timer.daemon = True
    timer.start()
