"""What the real `ocistow link` leaves when strace fails, or kills it at, any change of the disk."""

import queue
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, product
from pathlib import Path

import pytest

from ocistow.oci.reference import Reference
from ocistow.store.store import Store
from ocistow.testing.disk import QuickDisk
from ocistow.testing.injection import Fault, happened, injected, made, traced
from ocistow.testing.invariants import images, index_violations, strays, violations
from ocistow.testing.minimal import minimal_image
from ocistow.testing.warm import Warm

pytestmark = pytest.mark.slow

OLD = minimal_image("old", ["one"])
NEW = minimal_image("new", ["one", "two"])
NAME = "example.com/app:1"
PATH = "example.com/app/1"
BEFORE, AFTER = {PATH: str(OLD.root.digest)}, {PATH: str(NEW.root.digest)}
CHANGES = (
    "pwrite64", "fsync", "link", "linkat", "symlink", "symlinkat", "rename", "renameat",
    "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir",
)  # fmt: skip
MAX_CALLS = 300

Processes = queue.SimpleQueue[Warm]


class Runs:
    """Brings a layout of an older image up to date again and again, with faults."""

    def __init__(self, mode: str, directory: Path, warm: Warm) -> None:
        self._mode = mode
        self._directory = directory
        self._template = directory / "template"
        self._template.mkdir()
        self._numbers = count()
        with Store.create(self._template / "store", QuickDisk()) as store:
            for image in (OLD, NEW):
                image.add_to(store.blobs)
                store.put(Reference.parse(NAME), image.root)
                if image is OLD:
                    output = self._template / "output"
                    assert warm.run(self._arguments(self._template, "auto"), output) == 0
        root = self._new()
        pid = warm.prepare(self._arguments(root, mode), root / "output")
        with traced(CHANGES, pid, root / "log"):
            warm.go()
            assert warm.wait() == 0
        self.calls = made(root / "log")
        assert max(self.calls.values()) < MAX_CALLS

    def sweep(self, warm: Warm, call: str, effect: str) -> Iterator[str]:
        for at in range(1, self.calls[call] + 1):
            fault, root = Fault(call, effect, at), self._new()
            pid = warm.prepare(self._arguments(root, self._mode), root / "output")
            with injected(fault, pid, root / "log"):
                warm.go()
                status = warm.wait()
            wrong = self._wrong(root, *([AFTER] if status == 0 else [BEFORE, AFTER]))
            if status >= 0 and call not in ("unlink", "unlinkat"):
                wrong += strays(root / "out")
            if not happened(fault, root / "log", status):
                wrong.append("it did not happen")
            if warm.run(self._arguments(root, self._mode), root / "again") != 0:
                wrong.append((root / "again").read_text())
            wrong += self._wrong(root, AFTER)
            yield from (f"{fault}: {one} (status {status})" for one in wrong)
            shutil.rmtree(root)

    def _wrong(self, root: Path, *allowed: dict[str, str]) -> list[str]:
        wrong = [*violations(root / "store"), *index_violations(root / "out")]
        if (found := images(root / "out")) not in allowed:
            wrong.append(f"there are {found}")
        if images(root / "store") != AFTER:
            wrong.append("the store has changed")
        return wrong

    def _new(self) -> Path:
        root = self._directory / str(next(self._numbers))
        subprocess.run(["cp", "-a", self._template, root], check=True)
        return root

    def _arguments(self, root: Path, mode: str) -> list[str]:
        out = root / "out" / "layouts"
        return [f"--store={root / 'store'}", "link", NAME, str(out), f"--mode={mode}", "--jobs=1"]


@pytest.mark.parametrize("mode", ["auto", "copy", "symlink"])
def test_no_fault_leaves_half_a_layout(mode: str, scratch: Path, warm: Processes) -> None:
    process = warm.get()
    runs = Runs(mode, scratch, process)
    warm.put(process)

    def sweep(fault: tuple[str, str]) -> list[str]:
        process = warm.get()
        try:
            return list(runs.sweep(process, *fault))
        finally:
            warm.put(process)

    faults = list(product(sorted(runs.calls), ["signal=SIGKILL", "error=ENOSPC"]))
    assert len(faults) >= 10
    with ThreadPoolExecutor(warm.qsize()) as threads:
        found = list(threads.map(sweep, faults))
    assert [wrong for part in found for wrong in part] == []
