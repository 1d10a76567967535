import queue
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ocistow.testing.warm import Warm

PROCESSES = 2  # at once, where runs do not depend on each other


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Memory where there is some: thousands of small files are written here."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


@pytest.fixture(scope="module")
def warm() -> Iterator["queue.SimpleQueue[Warm]"]:
    """Processes that wait for commands which strace is to disturb."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    idle: queue.SimpleQueue[Warm] = queue.SimpleQueue()
    with ExitStack() as stack:
        for _ in range(PROCESSES):
            idle.put(stack.enter_context(Warm()))
        yield idle
