"""A process that has imported every command, and becomes one of them in a millisecond.

What starts Python anew spends a hundred times as long on imports as on the command. `Warm` is
for tests that run one a thousand times; `python -m ocistow.testing.warm` is the process, which
reads a line for each thing to do.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from ..cli.commands import run
from .mounts import environment

_PACKAGES = ("cli", "fusefs", "oci", "publish", "store", "audit")
_LATER = ("blake3", "sqlite3")  # what commands import when they need it


class Warm:
    """Such a process, for a block. One command at a time; not thread-safe."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate()  # the end of its input ends it

    def prepare(self, arguments: Sequence[str], output: Path) -> int:
        """Return the process id of a command that waits for `go`; `output` gets what it says."""
        return self._ask(json.dumps([*arguments], default=str), str(output))

    def go(self) -> None:
        """Let the command begin."""
        self._ask("go")

    def wait(self) -> int:
        """Return the exit status of the command, or minus the signal that ended it."""
        return self._ask("wait")

    def run(self, arguments: Sequence[str], output: Path) -> int:
        """Run a command and return its exit status; `output` gets what it says."""
        self.prepare(arguments, output)
        self.go()
        return self.wait()

    def _ask(self, *lines: str) -> int:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write("".join(f"{line}\n" for line in lines))
        stdin.flush()
        return int(stdout.readline())


def _serve() -> list[str]:
    """Do what the lines say; return the command line in a child that is to run it."""
    pid = gate = 0
    for line in sys.stdin:
        if line == "go\n":
            os.close(gate)
            _answer(0)
        elif line == "wait\n":
            _answer(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        else:
            output = sys.stdin.readline().rstrip("\n")
            wait, gate = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.close(gate)
                _redirect(output)
                os.read(wait, 1)  # to its end
                os.close(wait)
                return [str(argument) for argument in json.loads(line)]
            os.close(wait)
    return []


def _redirect(output: str) -> None:
    """Answer, and from then on have nothing in common with the process that serves."""
    answers = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC, 0o644)
    for source, target in ((nothing, 0), (file, 1), (file, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(file)
    os.write(answers, f"{os.getpid()}\n".encode())
    os.close(answers)


def _answer(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def _exit(status: int) -> NoReturn:
    """End as Python does, but without taking all modules to pieces first."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        status = 120
    os._exit(status)


def _import_all() -> None:
    for name in _PACKAGES:
        package = importlib.import_module(f"ocistow.{name}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    for name in _LATER:
        importlib.import_module(name)
    gc.freeze()  # a child that collects garbage would copy every page


if __name__ == "__main__":
    _import_all()
    if command := _serve():
        sys.argv = ["ocistow", *command]
        _exit(run())
