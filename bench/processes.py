"""Whole processes: how long they take, start-up included, and how much memory."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path

import ocistow

SOURCE = Path(ocistow.__path__[0]).parent  # what is measured is what is imported here
# PYTHONDONTWRITEBYTECODE, for one, makes every start compile: nobody's installation does. With
# OCISTOW_STORE phases would go to somebody's store, and CNB_… are flags that a way did not give.
# docker-registry takes REGISTRY_AUTH_FILE, which is about skopeo's credentials, for a setting.
_FOREIGN = ("PYTHON", "OCISTOW_", "CNB_", "REGISTRY_")
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)},
    "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin",
    "PYTHONPATH": str(SOURCE),
}
OCISTOW = (sys.executable, "-m", "ocistow.cli")
_LAUNCH = (sys.executable, "-I", "-S", str(Path(__file__).with_name("launch.py")))

_GRACE = 10.0  # seconds that a program has to clean up after an interrupt
_LAST_WORDS = 2000  # bytes of what a program wrote that a message has
warmth = ContextVar("warmth", default=768 << 20)
"""Bytes of memory that are warm before each run: what one adds to the page cache, and some more."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One run.

    Attributes:
        seconds: from start to end.
        cpu: seconds of processor time, of the process and its children.
        peak: bytes; the most memory that was resident at once, in one process.
        moved: bytes that were read and written, sockets and files alike.
        written: bytes of it that are for a disk.
    """

    seconds: float
    cpu: float
    peak: int
    moved: int = 0
    written: int = 0

    def __add__(self, other: Sample) -> Sample:
        """Return what one after the other is."""
        return Sample(
            self.seconds + other.seconds,
            self.cpu + other.cpu,
            max(self.peak, other.peak),
            self.moved + other.moved,
            self.written + other.written,
        )


class ProgramFailed(Exception):
    """A program that ended otherwise than with 0; says what it wrote last."""


def timed(
    *command: str | Path, environment: Mapping[str, str] | None = None, warm: int | None = None
) -> Sample:
    """Run a program to its end; before, have `warm` bytes of memory, see `warm_memory`.

    Raises:
        ProgramFailed: it failed.
    """
    warm_memory(warm)
    return _launched(*command, environment=environment)


def at_once(commands: Sequence[Sequence[str | Path]]) -> Sample:
    """Run programs at the same time, until all have ended; `peak` is of the largest.

    Raises:
        ProgramFailed: one failed.
    """
    warm_memory()
    began = time.perf_counter()
    with ThreadPoolExecutor(len(commands)) as threads:
        running = [threads.submit(_launched, *command) for command in commands]
    samples = [launched.result() for launched in running]
    seconds = time.perf_counter() - began
    return replace(reduce(add, samples), seconds=seconds)


def _launched(*command: str | Path, environment: Mapping[str, str] | None = None) -> Sample:
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as errors, open(reader, "rb") as report:
        launcher: subprocess.Popen[bytes] | None = None
        try:
            with uninterrupted():
                launcher = subprocess.Popen(
                    [*_LAUNCH, str(writer), *command],
                    stdin=subprocess.DEVNULL,
                    stdout=errors,  # where the lifecycle says what is wrong
                    stderr=errors,
                    env={**ENVIRONMENT, **(environment or {})},
                    pass_fds=[writer],
                    process_group=0,
                )
            launcher.wait()
        except BaseException:
            if launcher is not None:
                _end(launcher)
            raise
        finally:
            os.close(writer)
        status, seconds, cpu, peak, moved, written = report.read().decode().split()
        if status != "0":
            errors.seek(0)
            words = errors.read()[-_LAST_WORDS:].decode(errors="replace").strip()
            raise ProgramFailed(f"{' '.join(map(str, command))}: status {status}: {words}")
    return Sample(float(seconds), float(cpu), int(peak), int(moved), int(written))


@contextmanager
def uninterrupted() -> Generator[None]:
    """Let SIGINT and SIGTERM wait for the end of the block, in which something is started.

    What was started and is not known yet could not be ended. They come in the main thread alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {n: handler for n in numbers if callable(handler := signal.getsignal(n))}
    try:
        for number in before:
            signal.signal(number, lambda number, _: came.append(number))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])


def _end(launcher: subprocess.Popen[bytes]) -> None:
    """End a launcher and its program, so that neither does anything more."""
    with suppress(ProcessLookupError):
        os.killpg(launcher.pid, signal.SIGTERM)
    try:
        launcher.wait(_GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(launcher.pid, signal.SIGKILL)
        launcher.wait()


def clocked(work: Callable[[], object]) -> Sample:
    """Do something in this process, since a program's start would take longer; peak is 0."""
    warm_memory()
    before, began = os.times(), time.perf_counter()
    work()
    seconds, after = time.perf_counter() - began, os.times()
    return Sample(seconds, after.user + after.system - before.user - before.system, 0)


def warm_memory(size: int | None = None) -> None:
    """Have free memory that was used a moment ago, of `warmth` unless another size is given.

    A virtual machine gives back what it does not use. The first write of a page then takes twenty
    times as long as later ones, and whoever comes after somebody that freed much would win.
    """
    how = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    size = warmth.get() if size is None else size
    if size:
        mmap.mmap(-1, size, flags=how).close()


def output(*command: str | Path) -> str:
    """Return what a program prints, or nothing if it is not there or fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=ENVIRONMENT, check=False, timeout=60
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def cpu_of(pid: int) -> float:
    """Return the seconds of processor time that a living process took so far."""
    return time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(3): /proc has only ticks


def peak_of(pid: int) -> int:
    """Return the most memory in bytes that a living process had resident at once."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(pid)


def forget_peak(pid: int) -> None:
    """Let `peak_of` begin anew with what a process has now. Source: proc(5), "clear_refs"."""
    with suppress(PermissionError, FileNotFoundError):  # then it is the most so far
        Path(f"/proc/{pid}/clear_refs").write_text("5")
