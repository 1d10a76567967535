"""Faults that strace(1) puts into the system calls of a real process."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_TIMEOUT = 30.0  # seconds; the slowest traced command needs one


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at one call.

    Attributes:
        call: the name of the system call.
        effect: `error=ENOSPC`, or `signal=SIGKILL`: then the call does not happen.
        at: the how manyth such call it is, from 1, of each thread.
    """

    call: str
    effect: str
    at: int

    def __str__(self) -> str:
        return f"{self.effect} at {self.call} number {self.at}"


@contextmanager
def injected(fault: Fault, pid: int, log: Path) -> Generator[None]:
    """Have a fault happen to a process, which must end before the block does.

    The log gets the calls of that kind.
    """
    injection = f"--inject={fault.call}:{fault.effect}:when={fault.at}"
    with traced([fault.call], pid, log, injection):
        yield


@contextmanager
def traced(calls: Iterable[str], pid: int, log: Path, *options: str) -> Generator[None]:
    """Write to a log which of these calls a process makes; it must end before the block does."""
    command = [
        "strace",
        "--follow-forks",
        "--signal=none",
        f"--output={log}",
        f"--trace={','.join(calls)}",
        *options,
        f"--attach={pid}",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:  # noqa: S603
        assert strace.stderr is not None
        said = strace.stderr.readline()
        if "attached" not in said:
            strace.kill()
            raise OSError(said + strace.stderr.read())
        try:
            yield
            strace.wait(_TIMEOUT)
        finally:
            strace.kill()


def made(log: Path) -> set[str]:
    """Return the names of the calls that a log has."""
    return set(re.findall(r"^\d+ +(\w+)\(", log.read_text(), re.MULTILINE))


def happened(fault: Fault, log: Path, status: int) -> bool:
    """Tell whether the process made so many calls."""
    if fault.effect.startswith("signal="):
        return status < 0
    return re.search(r"\(INJECTED\)$", log.read_text(), re.MULTILINE) is not None
