"""Running ocistow as a process of its own."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import ocistow

Ocistow = Callable[..., "subprocess.CompletedProcess[str]"]

SOURCES = Path(ocistow.__file__).parents[1]


def environment(store: Path, **more: str) -> dict[str, str]:
    """Return an environment in which only `more` and the store say anything to ocistow."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OCISTOW_")}
    kept.pop("DOCKER_HOST", None)
    kept.pop("PYTHONUNBUFFERED", None)  # users' streams have buffers
    return {
        **kept,
        "PYTHONPATH": str(SOURCES),
        "PYTHONWARNINGS": "error",
        "OCISTOW_STORE": str(store),
        "OCISTOW_CONFIG": os.devnull,
        **more,
    }


@pytest.fixture
def run(tmp_path: Path) -> Ocistow:
    """Return a function that runs a command on a store below `tmp_path`.

    `first` is Python that the process executes before it starts ocistow, `under` a command that
    becomes this process.
    """

    def run(
        *arguments: str,
        first: str = "",
        under: Sequence[str] = (),
        stdout: int | None = None,
        **more: str,
    ) -> subprocess.CompletedProcess[str]:
        program = f"{first}\nfrom ocistow.cli.main import main\nmain()"
        return subprocess.run(
            [*under, sys.executable, "-c", program, *arguments],
            env=environment(tmp_path / "store", **more),
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if stdout is None else stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )

    return run
