"""The programs of buildpacks: started in a process group of their own, and ended with the phase."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import tempfile
import termios
from array import array
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Self, cast

from ...oci.errors import InvalidContent

PATIENCE = 1.0  # seconds from SIGTERM to SIGKILL
_CHUNK = 64 << 10  # bytes of output at once


class NotStarted(InvalidContent):
    """A program that could not be executed; worded as Go does."""


class Program:
    """A program that runs. It is ended, with what it started, when the block is left."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @classmethod
    def start(
        cls, command: Sequence[str], directory: Path, variables: Mapping[str, str], output: int
    ) -> Self:
        """Execute it without stdin, and with both its streams going into `output`.

        Raises:
            NotStarted: it cannot be executed, or the directory cannot be entered.
        """
        try:
            process = subprocess.Popen(  # noqa: S603 - buildpacks are what a builder is made of
                command,
                cwd=str(directory),
                env=_environment(variables),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,
            )
        except OSError as error:
            inside = error.filename == str(directory)
            what = f"chdir {directory}" if inside else f"fork/exec {command[0]}"
            raise NotStarted(f"{what}: {os.strerror(error.errno or 0).lower()}") from error
        return cls(process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            self.send(number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE)
                return

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it and to what it started, unless it has ended."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, number)

    def wait(self) -> int:
        """Return the exit status, or the negative number of the signal that ended it."""
        return self._process.wait()

    def copy(self, output: int, write: Callable[[bytes], None]) -> None:
        """Pass on what comes out of a pipe, until the program has ended.

        What it left running in the background may keep the pipe open, and write into it, and is
        not waited for.
        """
        ended = os.pidfd_open(self._process.pid)
        try:
            poll = select.poll()
            for file in (output, ended):
                poll.register(file, select.POLLIN)
            while ended not in {file for file, _ in poll.poll()}:
                if not (data := os.read(output, _CHUNK)):
                    return
                write(data)
            left = _waiting(output)
            while left and (data := os.read(output, min(left, _CHUNK))):
                write(data)
                left -= len(data)
        finally:
            os.close(ended)


def run(
    command: Sequence[str],
    directory: Path,
    variables: Mapping[str, str],
    write: Callable[[bytes], None],
) -> int:
    """Execute a program, pass on what it writes at once, and return how `wait` says it ended.

    Raises:
        NotStarted: it cannot be executed, or the directory cannot be entered.
    """
    reading, writing = os.pipe()
    try:
        try:
            program = Program.start(command, directory, variables, writing)
        finally:
            os.close(writing)
        with program:
            program.copy(reading, write)
            return program.wait()
    finally:
        os.close(reading)


def unnamed() -> BinaryIO:
    """Return a file for what a program writes; it is gone when it is closed."""
    return cast("BinaryIO", tempfile.TemporaryFile(buffering=0))


def how_ended(status: int) -> str:
    """Return what `wait` returned, in Go's words.

    >>> how_ended(1), how_ended(-9)
    ('exit status 1', 'signal: killed')
    """
    if status >= 0:
        return f"exit status {status}"
    return f"signal: {(signal.strsignal(-status) or str(-status)).lower()}"


def _waiting(pipe: int) -> int:
    """Return how many bytes a pipe has."""
    count = array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    # a program ends a name at the first `=`, and takes the last of two variables of one name
    pairs = (f"{name}={value}".partition("=") for name, value in variables.items())
    return {name: value for name, _, value in pairs}
