"""What is told of a detection."""

from __future__ import annotations

import os
import tempfile
from io import BytesIO
from typing import TYPE_CHECKING

from ocistow.lifecycle.buildpacks.transcript import Transcript
from ocistow.lifecycle.console import Console, Level

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class Growing(BytesIO):
    """Where a program goes on writing into `file`, as fast as it is read."""

    def __init__(self, file: int) -> None:
        super().__init__()
        self._file = file

    def write(self, data: ReadableBuffer, /) -> int:
        assert self.tell() < 1 << 20, "it never ends"
        os.write(self._file, b"more\n")
        return super().write(data)


def test_what_is_written_meanwhile_is_not_waited_for() -> None:
    transcript = Transcript()
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(b"output\n")
        transcript.output(Level.INFO, file)
        out = Growing(file.fileno())
        transcript.tell(Console(out), everything=True)
    assert out.getvalue() == b"output\n"
