"""What is said of a detection when it has ended: more of it if it failed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import BinaryIO

from ...oci.wording import printable
from ..console import Console, Level

_CHUNK = 64 << 10  # bytes of output at once


class Transcript:
    """Lines, and what programs wrote, in their order. For one thread."""

    def __init__(self) -> None:
        self._said: list[tuple[Level, Callable[[], Iterator[bytes]]]] = []

    def debug(self, text: str) -> None:
        """Note what explains a failure."""
        self.say(Level.DEBUG, text)

    def info(self, text: str) -> None:
        """Note what everybody may know."""
        self.say(Level.INFO, text)

    def say(self, level: Level, text: str) -> None:
        """Note a line of this level."""
        line = f"{printable(text)}\n".encode()
        self._said.append((level, lambda: iter((line,))))

    def output(self, level: Level, output: BinaryIO) -> None:
        """Note what a program wrote into a file, which stays open until it is told."""
        self._said.append((level, lambda: _content(output.fileno())))

    def tell(self, console: Console, *, everything: bool) -> None:
        """Say what the console's level asks for, or everything."""
        for level, chunks in self._said:
            if everything or level >= console.level:
                for chunk in chunks():
                    console.write(chunk)


def _content(file: int) -> Iterator[bytes]:
    position, last = 0, b""
    end = os.fstat(file).st_size  # something left in the background may go on writing
    while position < end and (chunk := os.pread(file, min(end - position, _CHUNK), position)):
        yield chunk
        position, last = position + len(chunk), chunk
    if last and not last.endswith(b"\n"):
        yield b"\n"
