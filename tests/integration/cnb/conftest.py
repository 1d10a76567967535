"""Go's lifecycle beside ours: `test_real_*.py` need its programs.

OCISTOW_LIFECYCLE_DIR names the directory that has them, such as /cnb/lifecycle of a builder image;
without it those tests are not collected, so that nobody takes them for skipped ones.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import ocistow

DIRECTORY = os.environ.get("OCISTOW_LIFECYCLE_DIR")

collect_ignore_glob = [] if DIRECTORY else ["test_real_*.py"]


@pytest.fixture(scope="session")
def real() -> Callable[[str], Path]:
    """Return what finds a program of Go's lifecycle: `real("analyzer")`."""

    def find(program: str) -> Path:
        if DIRECTORY is None:
            pytest.fail("OCISTOW_LIFECYCLE_DIR is not set: name this file test_real_*.py")
        path = Path(DIRECTORY, program).absolute()
        if not os.access(path, os.X_OK):
            pytest.fail(f"{path} is no program")
        return path

    return find


@pytest.fixture(scope="session")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return what finds a program of ours, in a directory where a platform can find it."""
    directory = tmp_path_factory.mktemp("cnb") / "lifecycle"
    subprocess.run(
        [sys.executable, "-m", "ocistow.cli", "phase", "install", directory],
        env={**os.environ, "PYTHONPATH": str(Path(ocistow.__file__).parents[1])},
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=60,
    )
    return directory.joinpath
