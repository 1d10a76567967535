"""A program on a pseudo-terminal, and what a person in front of it would see."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Self

WAIT = 60.0  # seconds until what is awaited must be there
_STEP = re.compile(r"\x1b\[(\d*)([AJKm])|(\r)|(\n)|([^\x1b\r\n]+)")


class Screen:
    """The lines of a terminal that is never scrolled, for the few controls that we send."""

    def __init__(self) -> None:
        self._lines = [""]
        self._row = self._column = 0

    @property
    def lines(self) -> list[str]:
        """What is seen, without empty lines at the end."""
        seen = [line.rstrip() for line in self._lines]
        while seen and not seen[-1]:
            seen.pop()
        return seen

    def show(self, output: str) -> None:
        """Do what the output of a program says.

        Raises:
            ValueError: it holds a control that is not known here.
        """
        at = 0
        while at < len(output):
            step = _STEP.match(output, at)
            if step is None:
                raise ValueError(f"unknown control: {output[at : at + 10]!r}")
            number, control, carriage, feed, text = step.groups()
            if carriage:
                self._column = 0
            elif feed:
                self._row += 1
                self._lines += [""] * (self._row + 1 - len(self._lines))
            elif text:
                line = self._lines[self._row].ljust(self._column)
                end = self._column + len(text)
                self._lines[self._row] = line[: self._column] + text + line[end:]
                self._column = end
            elif control == "A":
                self._row = max(0, self._row - int(number or 1))
            elif control in ("K", "J"):
                self._lines[self._row] = self._lines[self._row][: self._column]
                if control == "J":
                    del self._lines[self._row + 1 :]
            at = step.end()


class Terminal:
    """A program that has a terminal for itself; alive inside the block.

    Attributes:
        output: all that it wrote so far.
        screen: what that looks like now.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        size: tuple[int, int] = (24, 80),
    ) -> None:
        self._command = ["setsid", "--ctty", "--wait", *command]
        self._environment = environment
        self._size = size
        self.output = ""
        self.screen = Screen()

    def __enter__(self) -> Self:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *self._size, 0, 0))
        self._process = subprocess.Popen(
            self._command, stdin=theirs, stdout=theirs, stderr=theirs, env=self._environment
        )
        os.close(theirs)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._ours)  # hangs up
        self._process.kill()
        self._process.wait()

    def type(self, keys: str) -> None:
        """Send what a person types; Ctrl-C is ETX."""
        os.write(self._ours, keys.encode())

    def wait_until(self, seen: Callable[[Screen], bool]) -> None:
        """Read the program's output until the screen is as it should be.

        Raises:
            AssertionError: it ended or took too long.
        """
        deadline = time.monotonic() + WAIT
        while not seen(self.screen):
            left = deadline - time.monotonic()
            if left <= 0 or not self._read(left):
                raise AssertionError(f"not seen in: {self.screen.lines}")

    def wait(self) -> int:
        """Wait for the end of the program and return its status."""
        while self._read(WAIT):
            pass
        return self._process.wait(WAIT)

    def _read(self, seconds: float) -> bool:
        """Read what there is; False at the end."""
        if not select.select([self._ours], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._ours, 1 << 16)
        except OSError:  # EIO: nobody has the other side open any more
            return False
        text = data.decode(errors="replace")
        self.output += text
        self.screen.show(text)
        return bool(data)
