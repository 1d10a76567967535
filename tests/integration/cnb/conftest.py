"""Go's lifecycle beside ours: `test_real_*.py` need its programs.

OCISTOW_LIFECYCLE_DIR names the directory that has them, such as /cnb/lifecycle of a builder image;
without it those tests are not collected, so that nobody takes them for skipped ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

DIRECTORY = os.environ.get("OCISTOW_LIFECYCLE_DIR")

collect_ignore_glob = [] if DIRECTORY else ["test_real_*.py"]


@pytest.fixture(scope="session")
def real() -> Callable[[str], Path]:
    """Return what finds a program of Go's lifecycle: `real("analyzer")`."""

    def find(program: str) -> Path:
        if DIRECTORY is None:
            pytest.fail("OCISTOW_LIFECYCLE_DIR is not set: name this file test_real_*.py")
        path = Path(DIRECTORY, program).resolve()
        if not os.access(path, os.X_OK):
            pytest.fail(f"{path} is no program")
        return path

    return find
