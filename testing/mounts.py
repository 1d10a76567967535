"""Real mounts: an `ocistow mount` process for a block, and what it says meanwhile."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .descriptors import open_files

TIMEOUT = 60.0  # seconds; a mount needs less than one, a busy machine some more
_LAST_LINES = 300  # of a log; what a mount says of itself when a bug ends it has some hundred


class Log:
    """What a process writes to stderr, line by line, for whoever waits for some of it.

    Thread-safe. Reads until the stream ends, so the process never waits for its reader.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._condition = threading.Condition()
        self._lines: list[str] = []
        self._is_over = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def lines(self) -> list[str]:
        """The lines so far."""
        with self._condition:
            return list(self._lines)

    def matching(self, pattern: str) -> list[str]:
        """Return the lines so far in which a regular expression is found."""
        return [line for line in self.lines if re.search(pattern, line)]

    def wait_for(self, pattern: str, *, count: int = 1) -> list[str]:
        """Return the lines with a match as soon as there are `count` of them.

        Raises:
            TimeoutError: the stream ended before, or `TIMEOUT` passed.
        """

        def found() -> bool:
            return len([1 for line in self._lines if re.search(pattern, line)]) >= count

        with self._condition:
            self._condition.wait_for(lambda: found() or self._is_over, TIMEOUT)
            if not found():
                said = "\n".join(self._lines[-20:]) or "nothing"
                raise TimeoutError(f"{count} times {pattern!r} was expected, but it said: {said}")
        return self.matching(pattern)

    def join(self) -> list[str]:
        """Wait for the end of the stream and return all lines."""
        self._thread.join(TIMEOUT)
        return self.lines

    def _read(self) -> None:
        with self._stream:
            for line in self._stream:
                with self._condition:
                    self._lines.append(line.rstrip("\n"))
                    self._condition.notify_all()
        with self._condition:
            self._is_over = True
            self._condition.notify_all()


class Mount:
    """A store, mounted by a process that `mounted` started.

    Attributes:
        store: the store's directory on disk.
        path: the mount point.
        log: what the process says.
    """

    def __init__(self, store: Path, path: Path, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        self.store = store
        self.path = path
        self.log = Log(process.stderr)
        self._process = process
        self._is_killed = False

    @property
    def pid(self) -> int:
        """The number of the process that answers requests."""
        return self._process.pid

    @property
    def layouts(self) -> Path:
        """The directory on disk that the mount shows."""
        return self.store / "layouts"

    @property
    def warnings(self) -> list[str]:
        """The warnings so far. One about a refused file comes after close(2) has returned."""
        return self.log.matching("^WARNING ")

    @property
    def is_alive(self) -> bool:
        """Tell whether the process runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill the process at once, which leaves a dead mount behind."""
        self._is_killed = True
        self._process.kill()
        self._process.wait(TIMEOUT)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask the process to unmount and return its exit status."""
        self._process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the process to end by itself and return its exit status."""
        return self._process.wait(TIMEOUT)

    def unnamed_files(self) -> int:
        """Return how many files without a name the process has open: what is staged."""
        return sum(" (deleted)" in target for _, target in open_files(self.pid))

    def await_no_unnamed_files(self) -> None:
        """Return once nothing is staged any more: the kernel tells of a close later.

        Raises:
            TimeoutError: something still is.
        """
        wait_until(lambda: self.unnamed_files() == 0, "the last staged file is closed")

    def wait_until_usable(self) -> None:
        """Return once a client can use the mount.

        Raises:
            RuntimeError: the process ended instead.
        """
        with open("/proc/self/mountinfo", "rb") as table:
            process = os.pidfd_open(self.pid)
            try:
                events = select.poll()
                events.register(table, select.POLLPRI)  # the kernel reports every change of it
                events.register(process, select.POLLIN)
                while not is_usable(self.path):
                    if not self.is_alive:
                        raise RuntimeError("\n".join(self.log.join()) or "the mount ended")
                    events.poll(TIMEOUT * 1000)
            finally:
                os.close(process)

    def end(self) -> None:
        """Unmount, whatever has happened, and reap the process.

        Raises:
            AssertionError: the process ended by itself, or badly.
        """
        if self.is_alive:
            self._process.terminate()
        try:
            status = self._process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(TIMEOUT)
            raise
        finally:
            unmount(self.path)
            said = self.log.join()
        assert self._is_killed or status == 0, f"exit status {status}: {said[-30:]}"


@contextmanager
def mounted(store: Path, path: Path, *options: str) -> Generator[Mount]:
    """Mount a store, made if absent, at `path`, made if absent, for the block.

    The log shows what was started and warnings. The mount must not end by itself, or
    be ended other than by the methods of `Mount`. What leaves the block tells in a note how it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):  # a dead mount is there, and no directory
        path.mkdir()
    process = subprocess.Popen(
        command_line(store, "--verbose", "mount", *options, str(path)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="backslashreplace",
        env=environment(),
    )
    mount = Mount(store, path, process)
    try:
        mount.wait_until_usable()
        yield mount
    except BaseException as error:
        status = process.poll()
        mount.kill()
        mount.end()
        how = "was killed now" if status is None else f"had ended with status {status}"
        error.add_note("\n".join([f"the mount {how}; it said:", *mount.log.lines[-_LAST_LINES:]]))
        raise
    mount.end()


def command_line(store: Path, *arguments: str) -> list[str]:
    """Return the command line of this very ocistow for a store."""
    return [sys.executable, "-m", "ocistow.cli", f"--store={store}", *arguments]


def environment() -> dict[str, str]:
    """Return variables with which `command_line` finds what this process has imported."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "error"}


def run(store: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run an ocistow command on a store and return how it ended and what it said."""
    return subprocess.run(
        command_line(store, *arguments),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=2 * TIMEOUT,
        check=False,
    )


def unmount(path: Path) -> None:
    """Detach whatever is mounted at `path`, alive or dead; nothing is fine too."""
    name: Sequence[str] = ("umount", "--lazy") if os.geteuid() == 0 else ("fusermount3", "-uz")
    while path in mount_points():
        command = [*name, str(path)]
        subprocess.run(command, check=True, capture_output=True)


def mount_points() -> list[Path]:
    """Return where this process sees something mounted."""
    lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    escaped = re.compile(rb"\\([0-7]{3})")
    paths = [
        escaped.sub(lambda octal: bytes([int(octal[1], 8)]), line.split(b" ")[4]) for line in lines
    ]
    return [Path(os.fsdecode(path)) for path in paths]


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Return once a condition that nothing announces has come true.

    Raises:
        TimeoutError: it has not within `TIMEOUT`.
    """
    ticks = threading.Event()
    for _ in range(int(TIMEOUT / 0.01)):
        if condition():
            return
        ticks.wait(0.01)
    raise TimeoutError(f"waited {TIMEOUT} s: {what}")


def is_usable(path: Path) -> bool:
    """Tell whether a living file system is mounted there; stat(2) may answer for a dead one."""
    try:
        os.statvfs(path)
    except OSError:
        return False
    return os.path.ismount(path)
