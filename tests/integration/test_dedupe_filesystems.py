"""Dedupe on real file systems: what it says it frees is what statvfs(2) has more afterwards."""

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ocistow.store.disk import Disk
from ocistow.store.sharing.dedupe import plan
from ocistow.store.sharing.duplicates import Mode, Plan
from ocistow.store.sharing.journal import journals
from ocistow.store.sharing.replacement import Outcome, carry_out
from ocistow.store.sharing.undo import undo
from ocistow.store.store import Store
from ocistow.testing.images import image_layout

FileSystem = Callable[[str], Path]

SLACK = 256 << 10  # bytes; directories, the journal, and what file systems keep for themselves


def make_tree(top: Path) -> Path:
    """Make two layouts with the same layers, with holes, tails and files smaller than a block."""
    one = top / "tree" / "one"
    image_layout(one, layers=3, layer_size=1_500_001, compression="none")
    image_layout(one, seed=1, layers=1, layer_size=10, tag="small")
    sparse = b"begin" + bytes(3 << 20) + b"end"
    path = one / "blobs" / "sha256" / hashlib.sha256(sparse).hexdigest()
    with path.open("wb") as file:
        file.write(b"begin")
        file.seek(len(sparse) - 3)
        file.write(b"end")
    shutil.copytree(one, top / "tree" / "two")
    for number, path in enumerate((top / "tree").rglob("blobs/sha256/*")):
        path.chmod(0o640)
        os.chown(path, os.geteuid(), 1000 + number % 2)
        os.utime(path, ns=(10**18, 10**18 + number))
    return top / "tree"


def broken(*trees: Path) -> list[Path]:
    paths = [path for tree in trees for path in tree.rglob("blobs/sha256/*")]
    return [p for p in paths if hashlib.sha256(p.read_bytes()).hexdigest() != p.name]


def free(path: Path) -> int:
    os.sync()
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
    space = os.statvfs(path)
    return space.f_bfree * space.f_frsize


def has_more(path: Path, before: int, freed: int) -> bool:
    """Tell whether so much was freed; XFS frees what has no name any more a little later."""
    deadline = time.monotonic() + 60
    while abs(free(path) - before - freed) > SLACK:
        if time.monotonic() > deadline:
            return False
    return True


@contextmanager
def stored(top: Path) -> Generator[Store]:
    with Store.create(top / "store") as store:
        yield store


def run(store: Store, tree: Path, mode: Mode) -> tuple[Plan, Outcome]:
    made = plan([tree], store.blobs, mode)
    return made, carry_out(made, store, Disk())


def looks(tree: Path) -> dict[Path, tuple[int, ...]]:
    return {
        path: (s.st_ino, s.st_mode, s.st_uid, s.st_gid, s.st_mtime_ns, s.st_nlink)
        for path in sorted(tree.rglob("*"))
        for s in [path.stat()]
    }


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs"])
def test_hard_links_free_what_they_say(kind: str, file_system: FileSystem) -> None:
    top = file_system(kind)
    tree = make_tree(top)
    with stored(top) as store:
        before = free(top)
        made, outcome = run(store, tree, Mode.HARDLINK)
        assert outcome.left == []
        assert made.freed == outcome.freed > 4_000_000
        assert has_more(top, before, made.freed)
        assert broken(top) == []
        assert plan([tree], store.blobs, Mode.HARDLINK).groups == []
        undone = undo(journals(store.path)[-1], Disk())
        assert undone.left == []
        assert {path.stat().st_nlink for path in tree.rglob("blobs/sha256/*")} == {1}
        assert broken(top) == []


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_reflinks_free_what_they_say_and_keep_files_as_they_are(
    kind: str, file_system: FileSystem
) -> None:
    top = file_system(kind)
    tree = make_tree(top)
    with stored(top) as store:
        before, seen = free(top), looks(tree)
        made, outcome = run(store, tree, Mode.AUTO)
        assert (made.mode, outcome.left, outcome.journal) == (Mode.REFLINK, [], None)
        assert looks(tree) == seen
        assert made.freed == outcome.freed > 4_000_000
        assert has_more(top, before, made.freed)
        again = plan([tree], store.blobs, Mode.AUTO)
        assert (again.freed, again.groups) == (0, [])
        path = next(path for path in tree.rglob("blobs/sha256/*") if path.stat().st_size > 10**6)
        path.write_bytes(b"mine alone")  # changes nobody else's
        assert broken(store.path) == []


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_reflinks_to_a_pool_that_has_everything(kind: str, file_system: FileSystem) -> None:
    top = file_system(kind)
    tree = make_tree(top)
    with stored(top) as store:
        for path in tree.rglob("blobs/sha256/*"):
            store.blobs.add([path.read_bytes()])
        store.blobs.sync()
        before = free(top)
        made, outcome = run(store, tree, Mode.REFLINK)
        assert (made.taken_in, made.freed) == (0, outcome.freed)
        assert has_more(top, before, made.freed)
        assert plan([tree], store.blobs, Mode.REFLINK).groups == []


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_a_damaged_pool_is_found_by_the_kernel(kind: str, file_system: FileSystem) -> None:
    top = file_system(kind)
    tree = make_tree(top)
    with stored(top) as store:
        path = max(tree.rglob("blobs/sha256/*"), key=lambda path: path.stat().st_blocks)
        store.blobs.add([path.read_bytes()])
        mine = store.blobs.path / "sha256" / path.name
        mine.chmod(0o644)
        with mine.open("r+b") as file:
            file.seek(path.stat().st_size // 2)
            file.write(b"damage")
        _, outcome = run(store, tree, Mode.REFLINK)
        assert {left.path.name for left in outcome.left if left.is_wrong} == {path.name}
        assert broken(tree) == []


def test_a_file_system_without_links(file_system: FileSystem, tmp_path: Path) -> None:
    """Such a one holds no store, and a store elsewhere is of no use."""
    top = file_system("tmpfs")
    tree = make_tree(top)
    with (
        Store.create(tmp_path / "store") as store,
        pytest.raises(OSError, match="another file system"),
    ):
        plan([tree], store.blobs, Mode.AUTO)
