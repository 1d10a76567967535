"""SIGTERM as an exception, so that it ends a copy as tidily as Ctrl-C does."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType


class Terminated(BaseException):
    """SIGTERM came."""


@contextmanager
def terminable() -> Generator[None]:
    """Raise `Terminated` in the block, which the main thread runs, when SIGTERM comes."""
    before = signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _raise(_: int, __: FrameType | None) -> None:
    raise Terminated
