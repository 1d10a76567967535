"""Faults that strace(1) puts into the system calls of a real process."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_TIMEOUT = 60.0  # seconds; the slowest traced command needs one
_PATIENCE = 0.5  # seconds; a signal that comes just before strace waits does not wake it


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
def injected(fault: Fault, pid: int, log: Path, *, ends: bool = True) -> Generator[None]:
    """Have a fault happen to a process during the block; the log gets the calls of that kind.

    The process ends in the block, unless `ends` is false.
    """
    injection = f"--inject={fault.call}:{fault.effect}:when={fault.at}"
    with traced([fault.call], pid, log, injection, ends=ends):
        yield


@contextmanager
def traced(
    calls: Iterable[str], pid: int, log: Path, *options: str, ends: bool = True
) -> Generator[None]:
    """Write to a log which of these calls a process makes during the block.

    It ends in the block, unless `ends` is false.
    """
    command = [
        "strace",
        "--follow-forks",
        "--signal=none",
        f"--output={log}",
        f"--trace={','.join(calls)}",
        *options,
        f"--attach={pid}",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        said = strace.stderr.readline()
        if "attached" not in said:
            strace.kill()
            raise OSError(said + strace.stderr.read())
        try:
            yield
            if not ends:
                _let_go(strace)
            strace.wait(_TIMEOUT)
        finally:
            strace.kill()


def _let_go(strace: subprocess.Popen[str]) -> None:
    """End strace, whose process then goes on by itself."""
    strace.terminate()
    try:
        strace.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        strace.kill()


def made(log: Path) -> dict[str, int]:
    """Return how often a process made each of the calls that a log has.

    That is the most that one thread made, as faults count. A process that does the same again
    makes as many before a fault: there is none at any later call.
    """
    found = Counter(re.findall(r"^(\d+ +)?(\w+)\(", log.read_text(), re.MULTILINE))
    most: dict[str, int] = {}
    for (_, call), times in found.items():
        most[call] = max(times, most.get(call, 0))
    return most


def happened(fault: Fault, log: Path, status: int) -> bool:
    """Tell whether the process made so many calls."""
    if fault.effect.startswith("signal="):
        return status < 0
    return re.search(r"\(INJECTED\)$", log.read_text(), re.MULTILINE) is not None
