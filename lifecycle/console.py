"""What a phase says while it runs, in the form of Go's lifecycle.

Everything a phase says goes to stdout, errors too; stderr has only what buildpacks write there,
and the usage of a wrong flag. Source: Go's lifecycle, log/default_logger.go, log/timelog.go.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import IntEnum
from typing import BinaryIO, Self

from ..oci.errors import PhaseFailed
from .platform_api import Code


class Level(IntEnum):
    """How much is said: this and what is graver."""

    DEBUG = 0
    INFO = 1
    WARN = 2
    ERROR = 3
    FATAL = 4

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `-log-level` says.

        Raises:
            PhaseFailed: there is no such level.
        """
        name = text.upper()
        try:
            return cls["WARN" if name == "WARNING" else name]
        except KeyError:
            message = "failed to parse log level: invalid level"
            raise PhaseFailed(Code.FAILED, message) from None


_YELLOW, _RED, _CYAN, _RESET = "\x1b[33;1m", "\x1b[31;1m", "\x1b[36m", "\x1b[0m"
_ESCAPES = re.compile(rb"\x1b(?:\[[^a-zA-Z@]*[a-zA-Z@]?|[^\[]|\Z)")
# foreign words are seen, and do not act on a terminal
_SHOWN = {c: ascii(chr(c))[1:-1] for c in (*range(32), *range(127, 160)) if c not in b"\t\n"}


class Console:
    """The two streams of a phase. Thread-safe: a message is never torn.

    Attributes:
        level: what is graver or equal is said. Everything, until the flags are read.
        color: whether escape sequences are written; without, also those of buildpacks are removed.
    """

    def __init__(
        self, out: BinaryIO, err: BinaryIO | None = None, *, level: Level = Level.DEBUG
    ) -> None:
        self.level = level
        self.color = True
        self._out = out
        self._err = err or out
        self._lock = threading.Lock()

    def debug(self, text: str) -> None:
        """Say what only somebody who looks for a fault wants to know."""
        self._say(Level.DEBUG, "", text)

    def info(self, text: str) -> None:
        """Say what was done."""
        self._say(Level.INFO, "", text)

    def warn(self, text: str) -> None:
        """Say what somebody should look at, although the phase goes on."""
        self._say(Level.WARN, f"{_YELLOW}Warning: {_RESET}", text)

    def error(self, text: str) -> None:
        """Say what ends the phase."""
        self._say(Level.ERROR, f"{_RED}ERROR: {_RESET}", text)

    def phase(self, name: str) -> None:
        """Say that the creator begins a phase: `ANALYZING`."""
        self._say(Level.INFO, f"{_CYAN}===> ", name, _RESET)

    @contextmanager
    def timer(self, name: str) -> Generator[None]:
        """Say at debug level when the block begins, and when it ends, how long it took."""
        self.debug(f"Timer: {name} started at {_now()}")
        start = time.monotonic_ns()
        try:
            yield
        finally:
            took = duration(time.monotonic_ns() - start)
            self.debug(f"Timer: {name} ran for {took} and ended at {_now()}")

    def write(self, data: bytes, *, error: bool = False) -> None:
        """Pass on what a buildpack wrote to its stdout, or to its stderr."""
        if not self.color:
            data = _ESCAPES.sub(b"", data)
        with self._lock:
            stream = self._err if error else self._out
            stream.write(data)
            stream.flush()

    def _say(self, level: Level, prefix: str, text: str, suffix: str = "") -> None:
        if level < self.level:
            return
        shown = text.removesuffix("\n").translate(_SHOWN)
        self.write(f"{prefix}{shown}{suffix}\n".encode(errors="backslashreplace"))


def duration(nanoseconds: int) -> str:
    """Return a time span as Go writes it.

    >>> duration(0), duration(1500), duration(2_000_000), duration(3_723_500_000_000)
    ('0s', '1.5µs', '2ms', '1h2m3.5s')
    """
    if nanoseconds < 1_000_000_000:
        for unit, size in (("ms", 1_000_000), ("µs", 1_000), ("ns", 1)):
            if nanoseconds >= size:
                return f"{_decimal(nanoseconds, size)}{unit}"
        return "0s"
    minutes, rest = divmod(nanoseconds, 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{_decimal(rest, 1_000_000_000)}s"
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds


def _decimal(number: int, unit: int) -> str:
    whole, part = divmod(number, unit)
    digits = str(unit + part)[1:].rstrip("0") if unit > 1 else ""
    return f"{whole}.{digits}" if digits else str(whole)


def _now() -> str:
    local = datetime.now(UTC).astimezone()
    return local.isoformat(timespec="seconds").replace("+00:00", "Z")
