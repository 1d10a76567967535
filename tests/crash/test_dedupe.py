"""What dedupe and its undoing leave when power, a call of the disk or the process fails."""

import errno
import hashlib
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from ocistow.store.disk import Disk
from ocistow.store.sharing.dedupe import plan
from ocistow.store.sharing.duplicates import Mode
from ocistow.store.sharing.journal import close_journal, journals
from ocistow.store.sharing.replacement import carry_out
from ocistow.store.sharing.undo import undo
from ocistow.store.store import Store
from ocistow.testing.descriptors import open_files
from ocistow.testing.disk import FailingDisk, QuickDisk, WatchedDisk
from ocistow.testing.forgetful import ForgetfulDisk
from ocistow.testing.images import image_layout
from ocistow.testing.invariants import strays, violations
from ocistow.testing.minimal import MinimalImage, minimal_image

SOURCES = Path(__file__).parents[2] / "src"
A = minimal_image("a", ["one"])
B = minimal_image("b", ["one", "two"])
TIME = 10**18  # nanoseconds since the epoch


def write(directory: Path, *images: MinimalImage) -> None:
    """Write blobs as a tool would that has never heard of us."""
    for image in images:
        for digest, content in image.blobs.items():
            file = directory / "blobs" / "sha256" / digest.encoded
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            os.utime(file, ns=(TIME, TIME))
    (directory / "index.json").write_text("{}")


def with_layouts(root: Path) -> None:
    """Make layouts that the pool knows nothing of, two names of which are one file."""
    write(root / "tree" / "one", A)
    write(root / "tree" / "two", A, B)
    shared = root / "tree" / "shared" / "blobs" / "sha256"
    shared.mkdir(parents=True)
    for digest in A.blobs:
        (shared / digest.encoded).hardlink_to(root / "tree" / "one/blobs/sha256" / digest.encoded)
    Store.create(root / "store", QuickDisk()).close()


def with_a_pool(root: Path) -> None:
    with_layouts(root)
    with Store.open(root / "store", QuickDisk()) as store:
        A.add_to(store.blobs)


def with_links(root: Path) -> None:
    with_layouts(root)
    share(root, QuickDisk())


def share(root: Path, disk: Disk) -> None:
    with Store.open(root / "store", disk) as store:
        carry_out(plan([root / "tree"], store.blobs, Mode.HARDLINK), store, disk)


def unshare(root: Path, disk: Disk) -> None:
    for journal in reversed(journals(root / "store")):
        if not undo(journal, disk).left:
            close_journal(journal, disk)


@dataclass(frozen=True)
class Operation:
    name: str
    prepare: Callable[[Path], None]
    run: Callable[[Path, Disk], None]
    shares: bool

    def __str__(self) -> str:
        return self.name


OPERATIONS = [
    Operation("share", with_layouts, share, shares=True),
    Operation("share what the pool has", with_a_pool, share, shares=True),
    Operation("undo", with_links, unshare, shares=False),
]
each_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=str)


def wrong(root: Path) -> list[str]:
    """Return what is wrong with the blobs of layouts that nobody may lose, or with the store."""
    found = violations(root / "store")
    for name, images in (("one", (A,)), ("two", (A, B)), ("shared", (A,))):
        for image in images:
            for digest in image.blobs:
                file = root / "tree" / name / "blobs" / "sha256" / digest.encoded
                if not file.exists():
                    found.append(f"{file} is lost")
                elif hashlib.sha256(file.read_bytes()).hexdigest() != digest.encoded:
                    found.append(f"{file} is damaged")
    return found


def unfinished(root: Path, *, shares: bool) -> list[str]:
    """Return the names that do not share the pool's file, or that share anything unlike before."""
    found: list[str] = []
    for file in sorted((root / "tree").rglob("blobs/sha256/*")):
        status = file.stat()
        if shares:
            mine = root / "store" / "blobs" / "sha256" / file.name
            if not mine.exists() or not file.samefile(mine):
                found.append(f"{file} is not shared")
        else:
            once = 1 if file.is_relative_to(root / "tree" / "two") else 2
            if (status.st_nlink, status.st_mtime_ns) != (once, TIME) or not status.st_mode & 0o200:
                found.append(f"{file} is not as it was: {status}")
    return found


@each_operation
def test_no_power_loss_damages_a_layout(operation: Operation, scratch: Path) -> None:
    root = scratch / "now"
    operation.prepare(root)
    disk = ForgetfulDisk(root)
    operation.run(root, disk)
    assert wrong(root) == []
    assert unfinished(root, shares=operation.shares) == []
    for number, state in disk.states(scratch / "after"):
        assert wrong(state) == [], f"after {disk.calls[number]} ({number})"
    assert len(disk.calls) > 10
    for _, state in disk.states(scratch / "end", first=len(disk.calls) - 1):
        linked = {p.stat().st_nlink > 2 for p in state.rglob("tree/*/blobs/sha256/*")}
        assert (True in linked) == operation.shares  # what was done survives


@each_operation
def test_after_power_loss_it_can_be_done_again(operation: Operation, scratch: Path) -> None:
    root = scratch / "now"
    operation.prepare(root)
    disk = ForgetfulDisk(root)
    operation.run(root, disk)
    for number, state in disk.states(scratch / "after"):
        share(state, QuickDisk())
        assert wrong(state) == [], f"after {disk.calls[number]} ({number})"
        assert unfinished(state, shares=True) == [], f"after {disk.calls[number]} ({number})"


@each_operation
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EMLINK], ids=errno.errorcode.get)
def test_every_failing_call_leaves_layouts_whole(
    operation: Operation, code: int, scratch: Path
) -> None:
    for at in itertools.count():
        root = scratch / f"{at}"
        operation.prepare(root)
        disk = FailingDisk(at, code)
        files = open_files()
        with suppress(OSError):
            operation.run(root, disk)
        assert open_files() <= files
        assert wrong(root) == []
        assert strays(root) == []
        operation.run(root, QuickDisk())
        assert wrong(root) == []
        assert unfinished(root, shares=operation.shares) == []
        shutil.rmtree(root)
        if disk.failed is None:
            assert at > 10
            return


class Deadly(WatchedDisk):
    """A disk before whose call number `at` the process dies."""

    def __init__(self, at: int) -> None:
        self._left = at

    def about_to(self, call: str) -> None:
        self._left -= 1
        if self._left == -1:
            os.kill(os.getpid(), signal.SIGKILL)


@each_operation
def test_a_death_before_any_call_is_no_harm(operation: Operation, scratch: Path) -> None:
    for at in itertools.count():
        root = scratch / f"{at}"
        operation.prepare(root)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                operation.run(root, Deadly(at))
                status = 0
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        assert wrong(root) == []
        operation.run(root, QuickDisk())
        assert wrong(root) == []
        assert unfinished(root, shares=operation.shares) == []
        shutil.rmtree(root)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            assert at > 10
            return


@pytest.mark.slow
def test_killed_at_any_time(tmp_path: Path) -> None:
    """The command itself, whenever it happens to be what it is doing."""
    tree = tmp_path / "tree"
    for number in range(6):
        image_layout(tree / "app" / str(number), seed=number // 2, layer_size=500_000)
    names = sorted(tree.rglob("blobs/sha256/*"))
    chance = random.Random(0)
    code = "from ocistow.cli.main import main; main()"
    command = [sys.executable, "-c", code, "--store", str(tmp_path / "store"), "dedupe"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCES), "OCISTOW_CONFIG": os.devnull}

    def run(*arguments: str, patience: float | None = None) -> int:
        with subprocess.Popen(
            [*command, *arguments], env=environment, stdout=subprocess.DEVNULL
        ) as process:
            try:
                return process.wait(patience)
            except subprocess.TimeoutExpired:
                process.kill()
                return process.wait()

    for _ in range(5):
        run("--mode=hardlink", str(tree), patience=chance.uniform(0.3, 1.2))
        assert [p for p in names if hashlib.sha256(p.read_bytes()).hexdigest() != p.name] == []
        if journals(tmp_path / "store"):
            run("--undo", patience=chance.uniform(0.3, 0.8))
            assert [p for p in names if hashlib.sha256(p.read_bytes()).hexdigest() != p.name] == []
    assert run("--mode=hardlink", str(tree)) == 0
    pool = tmp_path / "store" / "blobs" / "sha256"
    assert all(path.samefile(pool / path.name) for path in names)
    while journals(tmp_path / "store"):
        assert run("--undo") == 0
    assert {path.stat().st_nlink for path in names} == {1}
    assert [p for p in names if hashlib.sha256(p.read_bytes()).hexdigest() != p.name] == []
