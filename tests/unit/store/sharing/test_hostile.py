"""What somebody could try who owns the directories, or wrote the journal, that others work with."""

import json
import os
import stat
from pathlib import Path

import pytest

from ocistow.oci.errors import InvalidContent
from ocistow.store.disk import Disk
from ocistow.store.sharing.dedupe import ATTRIBUTES, plan
from ocistow.store.sharing.duplicates import Mode, Plan
from ocistow.store.sharing.journal import entries, journals
from ocistow.store.sharing.replacement import Outcome, carry_out
from ocistow.store.sharing.undo import undo
from ocistow.store.store import Store
from ocistow.testing.images import image_layout

DISK = Disk()
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files to others")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("one", "two"):
        image_layout(tmp_path / "tree" / name, seed=1)
    return tmp_path / "tree"


def planned(store: Store, *directories: Path) -> Plan:
    return plan(directories, store.blobs, Mode.HARDLINK)


def deduped(store: Store, *directories: Path) -> Outcome:
    return carry_out(planned(store, *directories), store, DISK)


def blobs(layout: Path) -> list[Path]:
    return sorted((layout / "blobs" / "sha256").iterdir())


def kept(directory: Path) -> dict[Path, tuple[int, int, int, bytes]]:
    """Return what every file of a directory is, but for its links."""
    files = ((path, path.stat()) for path in sorted(directory.rglob("*")) if path.is_file())
    return {p: (s.st_ino, s.st_mode, s.st_uid, p.read_bytes()) for p, s in files}


def journal_of(store: Store) -> Path:
    (path,) = journals(store.path)
    return path


@pytest.mark.parametrize(
    "change",
    [
        {"path": "one/index.json"},
        {"path": "../elsewhere/blobs/sha256/{hex}"},
        {"path": "one/blobs/sha512/{hex}"},
        {"path": "one/blobs/sha256/%2e%2e/sha256/{hex}"},
        {"top": "relative"},
        {"mode": 0o4755},
        {"mode": -1},
        {"mode": 1 << 32},
    ],
    ids=str,
)
def test_a_journal_cannot_name_what_dedupe_never_touches(
    store: Store, tree: Path, change: dict[str, str | int]
) -> None:
    deduped(store, tree)
    path = journal_of(store)
    header, line, *_ = path.read_bytes().splitlines()
    members = json.loads(line)
    encoded = members["digest"].partition(":")[2]
    given = {k: v.format(hex=encoded) if isinstance(v, str) else v for k, v in change.items()}
    path.write_bytes(header + b"\n" + json.dumps(members | given).encode() + b"\n")
    assert list(entries(path)) == []


@needs_root
def test_a_journal_of_another_user_is_not_believed(store: Store, tree: Path) -> None:
    """Its lines say whose files shall be: root would give them away."""
    deduped(store, tree)
    path = journal_of(store)
    os.chown(path, 1234, 1234)
    with pytest.raises(InvalidContent, match="user 1234"):
        undo(path, DISK)


def test_a_journal_that_others_can_write_is_not_believed(store: Store, tree: Path) -> None:
    deduped(store, tree)
    path = journal_of(store)
    path.chmod(0o620)
    with pytest.raises(InvalidContent, match="others can write"):
        undo(path, DISK)


@pytest.mark.parametrize("name", ["tree", "tree/one", "tree/one/blobs"])
def test_undo_is_not_led_elsewhere(store: Store, tree: Path, name: str) -> None:
    """Whoever owned the directory would own a blob of somebody else's layout afterwards."""
    deduped(store, tree)
    there = tree.parent / name
    victim = tree.parent / "victim"
    there.rename(victim)
    there.symlink_to(victim)
    before = kept(victim)
    result = undo(journal_of(store), DISK)
    assert kept(victim) == before
    assert any(left.path.is_relative_to(there) for left in result.left)


@pytest.mark.parametrize("name", ["one", "one/blobs", "one/blobs/sha256"])
def test_dedupe_is_not_led_elsewhere(store: Store, tree: Path, name: str) -> None:
    """A directory becomes a link to one with the very same files, after they were looked at."""
    made = planned(store, tree)
    victim = tree.parent / "victim"
    (tree / name).rename(victim)
    (tree / name).symlink_to(victim)
    before = kept(victim)
    carry_out(made, store, DISK)
    assert kept(victim) == before


def test_what_has_names_elsewhere_is_not_changed_there(store: Store, tree: Path) -> None:
    """Somebody may write to it there, and it would be the store's."""
    outside = [tree.parent / path.name for path in blobs(tree / "one")]
    for path in outside:
        path.hardlink_to(tree / "one" / "blobs" / "sha256" / path.name)
    before = [path.stat() for path in outside]
    deduped(store, tree)
    for path, status in zip(outside, before, strict=True):
        mine = store.blobs.path / "sha256" / path.name
        assert path.stat().st_mode == status.st_mode
        assert not path.samefile(mine)
        path.write_bytes(b"changed")
        assert mine.read_bytes() == (tree / "two/blobs/sha256" / path.name).read_bytes()


def test_what_is_read_only_already_may_have_names_elsewhere(store: Store, tree: Path) -> None:
    for path in blobs(tree / "one"):
        path.chmod(0o444)
        (tree.parent / path.name).hardlink_to(path)
    made = deduped(store, tree / "one")
    assert made.taken_in == len(blobs(tree / "one"))
    assert all((store.blobs.path / "sha256" / p.name).samefile(p) for p in blobs(tree / "one"))


def test_attributes_that_a_link_would_lose_are_kept(store: Store, tree: Path) -> None:
    labelled, special = blobs(tree / "one")[:2]
    try:
        os.setxattr(labelled, "user.origin", b"somewhere")
    except OSError:
        pytest.skip("no extended attributes here")
    special.chmod(0o4644)
    outcome = planned(store, tree)
    assert {left.path for left in outcome.left if left.why == ATTRIBUTES} == {labelled, special}
    carry_out(outcome, store, DISK)
    assert os.getxattr(labelled, "user.origin") == b"somewhere"
    assert stat.S_IMODE(special.stat().st_mode) == 0o4644


def test_an_attribute_that_comes_after_the_plan_is_kept(store: Store, tree: Path) -> None:
    made = planned(store, tree)
    path = blobs(tree / "one")[0]
    try:
        os.setxattr(path, "user.origin", b"somewhere")
    except OSError:
        pytest.skip("no extended attributes here")
    carry_out(made, store, DISK)
    assert os.getxattr(path, "user.origin") == b"somewhere"
