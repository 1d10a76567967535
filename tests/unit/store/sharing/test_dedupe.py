"""What dedupe does on this machine's file system, by hard links."""

import errno
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ocistow.oci.digest import Digest
from ocistow.oci.errors import InvalidContent, NotFound
from ocistow.store.collection.collector import Collector
from ocistow.store.disk import Disk
from ocistow.store.sharing import dedupe
from ocistow.store.sharing.dedupe import CHANGED, WRITTEN, plan
from ocistow.store.sharing.duplicates import Mode, Plan
from ocistow.store.sharing.journal import close_journal, entries, journals
from ocistow.store.sharing.replacement import Outcome, carry_out
from ocistow.store.sharing.undo import Undone, undo
from ocistow.store.store import Store
from ocistow.testing.images import GeneratedImage, image_layout

DISK = Disk()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two app images on one run image, and another, as pack's layout-repo-dir has them."""
    top = tmp_path / "tree"
    run = image_layout(top / "index.docker.io" / "library" / "run" / "latest", seed=1)
    app(run, top / "example.com" / "app" / "1", seed=2)
    app(run, top / "example.com" / "app" / "2", seed=3)
    return top


def app(run: GeneratedImage, path: Path, seed: int) -> GeneratedImage:
    made = image_layout(path, seed=seed, layers=1, base=run)
    for digest in run.layers:
        shutil.copy(run.blob(digest), made.blob(digest))
    return made


def planned(store: Store, *directories: Path, mode: Mode = Mode.HARDLINK) -> Plan:
    return plan(directories, store.blobs, mode)


def deduped(store: Store, *directories: Path, mode: Mode = Mode.HARDLINK) -> Outcome:
    return carry_out(planned(store, *directories, mode=mode), store, DISK)


def blobs_of(tree: Path) -> list[Path]:
    return [p for p in sorted(tree.rglob("*")) if p.is_file() and p.parent.parent.name == "blobs"]


def broken(*trees: Path) -> list[Path]:
    """Return the blobs that are not what their names say, found with nothing but hashlib."""
    return [
        path
        for tree in trees
        for path in blobs_of(tree)
        if hashlib.new(path.parent.name, path.read_bytes()).hexdigest() != path.name
    ]


def on_disk(*trees: Path) -> int:
    found = [path.stat() for tree in trees for path in blobs_of(tree)]
    return sum({(s.st_dev, s.st_ino): s.st_blocks * 512 for s in found}.values())


def state(path: Path) -> tuple[int, ...]:
    """Return what changes when a file does, and not when it is read."""
    status = path.stat()
    return status.st_ino, status.st_mode, status.st_nlink, status.st_size, status.st_ctime_ns


def looks(tree: Path) -> dict[str, tuple[object, ...]]:
    """Return all that can be seen of the files of a tree, but for inode numbers."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(tree.rglob("*")):
        status = path.lstat()
        content = (status.st_nlink, path.read_bytes()) if path.is_file() else None
        owner = (status.st_mode, status.st_uid, status.st_gid)
        found[str(path.relative_to(tree))] = (*owner, status.st_mtime_ns, content)
    return found


def test_duplicates_become_links_of_the_pool(store: Store, tree: Path) -> None:
    blobs = blobs_of(tree)
    before = on_disk(tree)
    made = planned(store, tree)
    assert set(store.blobs) == set()
    outcome = carry_out(made, store, DISK)
    assert (outcome.links, outcome.left) == (len(blobs), [])
    assert outcome.taken_in == made.taken_in == len({path.name for path in blobs})
    assert made.freed == outcome.freed == before - on_disk(tree, store.path) > 0
    for path in blobs:
        assert path.samefile(store.blobs.path / "sha256" / path.name)
        assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert broken(tree, store.path) == []


def test_there_is_nothing_to_do_twice(store: Store, tree: Path) -> None:
    deduped(store, tree)
    again = planned(store, tree)
    assert (again.groups, again.freed) == ([], 0)
    assert [(t.blobs, t.shared) for t in again.layouts] == [(6, 6), (6, 6), (5, 5)]
    assert carry_out(again, store, DISK) == Outcome()
    assert len(journals(store.path)) == 1


def test_what_the_pool_has_is_used(store: Store, tree: Path) -> None:
    for path in blobs_of(tree):
        store.blobs.add([path.read_bytes()])
    before = on_disk(tree, store.path)
    made = planned(store, tree)
    assert made.taken_in == 0
    assert carry_out(made, store, DISK).freed == made.freed == before - on_disk(tree, store.path)
    assert planned(store, tree).groups == []


def test_the_tree_keeps_modes_owners_and_times(store: Store, tree: Path) -> None:
    for number, directory in enumerate(sorted(tree.rglob("*/"))):
        directory.chmod(0o750)
        os.utime(directory, ns=(number * 10**9 + 1, number * 10**9 + 2))
    others = {p: looks(tree)[p] for p in looks(tree) if "/blobs/sha256/" not in p}
    deduped(store, tree)
    assert {p: looks(tree)[p] for p in looks(tree) if "/blobs/sha256/" not in p} == others


def test_wrong_content_is_told_and_left_alone(store: Store, tree: Path) -> None:
    path = blobs_of(tree)[0]
    path.write_bytes(b"x" * path.stat().st_size)
    before = state(path)
    made = planned(store, tree)
    assert [(left.path, left.is_wrong) for left in made.left] == [(path, True)]
    carry_out(made, store, DISK)
    assert state(path) == before
    assert broken(tree) == [path]


def test_other_files_are_not_touched(store: Store, tree: Path) -> None:
    layout = tree / "example.com" / "app" / "1"
    same = layout / "blobs" / "sha256" / "not-a-digest"
    shutil.copy(blobs_of(layout)[0], same)
    for name in ("index.json", "oci-layout"):  # even if it is what a blob is
        content = (layout / name).read_bytes()
        store.blobs.add([content])
    before = {name: state(layout / name) for name in ("index.json", "oci-layout")}
    status = state(same)
    deduped(store, tree)
    assert {name: state(layout / name) for name in before} == before
    assert state(same) == status


def test_links_that_are_there_count_once(store: Store, tmp_path: Path) -> None:
    """As in a registry's root, whose repositories share blobs by hard links."""
    for repository in ("a", "b/c"):
        image_layout(tmp_path / "root" / repository, seed=1, tag="1")
        image_layout(tmp_path / "root" / repository, seed=2, tag="2")
        (tmp_path / "root" / repository / ".uploads").mkdir()
    for path in blobs_of(tmp_path / "root" / "a"):
        other = tmp_path / "root" / "b/c" / path.relative_to(tmp_path / "root" / "a")
        other.unlink()
        other.hardlink_to(path)
    before = on_disk(tmp_path / "root")
    first = planned(store, tmp_path / "root")
    assert first.freed == 0
    assert [tally.blobs for tally in first.layouts] == [10, 10]
    carry_out(first, store, DISK)
    assert on_disk(tmp_path / "root", store.path) == before


def test_what_others_link_is_not_freed(store: Store, tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree, tmp_path / "backup", copy_function=os.link)
    made = planned(store, tree)
    before = on_disk(tree, tmp_path / "backup")
    assert carry_out(made, store, DISK).freed == made.freed == 0
    assert on_disk(tree, tmp_path / "backup", store.path) == before
    assert broken(tmp_path / "backup") == []


def test_directories_may_overlap_and_be_links(store: Store, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tree)
    made = planned(store, tree, tree / "example.com", tmp_path / "link")
    assert sum(tally.blobs for tally in made.layouts) == len(blobs_of(tree))


@contextmanager
def writer(path: Path, how: str = "os.open(path, os.O_RDWR)") -> Generator[None]:
    """Let another process have a file open for writing."""
    code = (
        f"import mmap, os, sys; path = sys.argv[1]; f = {how}; print('ready', flush=True); input()"
    )
    command = [sys.executable, "-u", "-c", code, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield
        process.communicate("\n")


MAPPED = "mmap.mmap(os.open(path, os.O_RDWR), 0); os.closerange(3, 10)"  # the mapping stays


@pytest.mark.parametrize("how", ["os.open(path, os.O_RDWR)", MAPPED], ids=["open", "mapped"])
def test_files_open_for_writing_are_left_alone(store: Store, tree: Path, how: str) -> None:
    path = blobs_of(tree)[0]
    status = path.stat()
    with writer(path, how):
        made = planned(store, tree)
        assert [(left.path, left.why) for left in made.left] == [(path, WRITTEN)]
        carry_out(made, store, DISK)
        after = path.stat()
        assert (after.st_ino, after.st_nlink, after.st_mode) == (status.st_ino, 1, status.st_mode)
    assert broken(tree, store.path) == []
    deduped(store, tree)
    assert path.samefile(store.blobs.path / "sha256" / path.name)


def test_files_opened_after_the_plan_are_left_alone(store: Store, tree: Path) -> None:
    made = planned(store, tree)
    path = blobs_of(tree)[-1]
    with writer(path):
        outcome = carry_out(made, store, DISK)
    assert {left.why for left in outcome.left} <= {WRITTEN}
    assert (path.stat().st_nlink, broken(tree, store.path)) == (1, [])


@pytest.mark.parametrize("number", range(0, 17, 4))
def test_files_changed_after_the_plan_are_left_alone(store: Store, tree: Path, number: int) -> None:
    made = planned(store, tree)
    path = blobs_of(tree)[number]
    times = path.stat()
    with path.open("r+b") as file:
        file.write(b"?")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    before = state(path)
    outcome = carry_out(made, store, DISK)
    assert (path, CHANGED) in [(left.path, left.why) for left in outcome.left]
    assert state(path) == before
    assert broken(tree, store.path) == [path]


def test_files_that_change_while_they_are_read(
    store: Store, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = max(blobs_of(tree), key=lambda path: path.stat().st_size)
    real = os.preadv

    def preadv(file: int, buffers: list[memoryview], offset: int) -> int:
        count = real(file, buffers, offset)
        if os.readlink(f"/proc/self/fd/{file}") == str(path):
            with path.open("r+b") as writing:
                writing.write(path.read_bytes())  # the same: only the inode tells
        return count

    monkeypatch.setattr(os, "preadv", preadv)
    assert [(left.path, left.why) for left in planned(store, tree).left] == [(path, CHANGED)]


def test_a_name_that_is_another_file_is_left_alone(store: Store, tree: Path) -> None:
    made = planned(store, tree)
    path = blobs_of(tree)[3]
    content = path.read_bytes()
    path.unlink()
    path.symlink_to("elsewhere")
    gone = blobs_of(tree)[7]
    gone.unlink()
    carry_out(made, store, DISK)
    assert path.is_symlink()
    assert not gone.exists()
    path.unlink()
    path.write_bytes(content)
    assert broken(tree, store.path) == []


def test_a_damaged_pool_replaces_nothing(store: Store, tree: Path) -> None:
    path = blobs_of(tree)[0]
    store.blobs.add([path.read_bytes()])
    mine = store.blobs.path / "sha256" / path.name
    mine.chmod(0o644)
    mine.write_bytes(b"x" * path.stat().st_size)
    made = planned(store, tree)
    assert [(left.path, left.is_wrong) for left in made.left] == [(mine, True)]
    carry_out(made, store, DISK)
    assert not path.samefile(mine)
    assert broken(tree) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to have files of others")
def test_files_of_others_are_copied_and_not_adopted(store: Store, tree: Path) -> None:
    for path in blobs_of(tree):
        os.chown(path, 1234, 1234)
    before = on_disk(tree)
    made = planned(store, tree)
    alone = [p for p in blobs_of(tree) if sum(q.name == p.name for q in blobs_of(tree)) == 1]
    outcome = carry_out(made, store, DISK)
    assert outcome.freed == made.freed == before - on_disk(tree, store.path) > 0
    assert {file.stat().st_uid for file in blobs_of(store.path)} == {os.geteuid()}
    for path in alone:  # nothing would be gained
        assert (path.stat().st_nlink, path.stat().st_uid) == (1, 1234)
    assert undone(store).left == []
    assert {path.stat().st_uid for path in blobs_of(tree)} == {1234}


def test_one_inode_with_links_galore_is_left_alone(
    store: Store, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dedupe, "MANY_LINKS", 1)
    assert planned(store, tree).groups == []


def test_gc_drops_pool_names_and_the_tree_keeps_its_links(store: Store, tree: Path) -> None:
    deduped(store, tree)
    before = on_disk(tree)
    Collector(store, grace=-1).collect()
    assert set(store.blobs) == set()
    assert (on_disk(tree), broken(tree)) == (before, [])
    again = planned(store, tree)
    assert again.freed == 0
    carry_out(again, store, DISK)
    assert on_disk(tree, store.path) == before


def undone(store: Store) -> Undone:
    return undo(journals(store.path)[-1], DISK)


def test_undo_restores_everything(store: Store, tree: Path) -> None:
    for number, path in enumerate(blobs_of(tree)):
        path.chmod(0o600 + number)
        os.utime(path, ns=(10**18 + number, 10**18 + number))
    before = looks(tree)
    deduped(store, tree)
    assert looks(tree) != before
    result = undone(store)
    assert (result.restored, result.untouched, result.left) == (17, 0, [])
    assert result.taken == on_disk(tree)
    assert looks(tree) == before
    again = undone(store)
    assert (again.restored, again.untouched) == (0, 17)
    assert broken(tree, store.path) == []


def test_undo_restores_links_that_were_there(store: Store, tree: Path) -> None:
    one, two = (tree / "example.com" / "app" / n / "blobs" / "sha256" for n in "12")
    common = {p.name for p in one.iterdir()} & {p.name for p in two.iterdir()}
    for name in common:
        (two / name).unlink()
        (two / name).hardlink_to(one / name)
    before = looks(tree)
    used = on_disk(tree)
    deduped(store, tree)
    undone(store)
    assert looks(tree) == before
    assert on_disk(tree) == used
    assert all((one / name).samefile(two / name) for name in common)


def test_undo_leaves_alone_what_is_no_longer_ours(store: Store, tree: Path) -> None:
    deduped(store, tree)
    gone, link, other, own = blobs_of(tree)[:4]
    gone.unlink()
    link.unlink()
    link.symlink_to("elsewhere")
    other.unlink()
    other.write_bytes(b"other")
    content = own.read_bytes()
    own.unlink()
    own.write_bytes(content)
    before = state(own)
    result = undone(store)
    assert {left.path for left in result.left} == {gone, link}
    assert result.untouched == 2
    assert link.is_symlink()
    assert other.read_bytes() == b"other"
    assert state(own) == before


def test_undo_writes_no_content_that_is_not_the_blob(store: Store, tree: Path) -> None:
    deduped(store, tree)
    path = blobs_of(tree)[0]
    path.chmod(0o644)
    path.write_bytes(b"damaged in place")
    result = undone(store)
    assert result.left
    assert path.read_bytes() == b"damaged in place"


def test_journals_are_undone_from_the_last_to_the_first(store: Store, tree: Path) -> None:
    deduped(store, tree / "example.com" / "app" / "1")
    deduped(store, tree)
    first, second = journals(store.path)
    undo(second, DISK)
    assert close_journal(second, DISK).exists()
    assert journals(store.path) == [first]


def test_a_journal_ends_where_it_was_not_synced(
    store: Store, tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    deduped(store, tree)
    (path,) = journals(store.path)
    whole = path.read_bytes()
    number = len(list(entries(path)))
    for tail in (b'{"top": "/', bytes(100), b"\xff\n", b'{"top": 3}\n', b"[]\n", b"\n"):
        path.write_bytes(whole + tail + whole.splitlines(keepends=True)[-1])
        assert len(list(entries(path))) == number
        assert f"ends before line {number + 2}" in caplog.messages[-1]
    escaping = json.loads(whole.splitlines()[-1]) | {"path": "../x"}
    path.write_bytes(whole + json.dumps(escaping).encode() + b"\n")
    assert len(list(entries(path))) == number


def test_what_is_no_journal(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        list(entries(tmp_path / "absent.jsonl"))
    for content in (b"", b"{}\n", b'{"type": "dedupe", "version": 2}\n'):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(InvalidContent):
            list(entries(tmp_path / "file"))
    assert journals(tmp_path) == []


def test_names_that_are_no_text_can_be_undone(store: Store, tree: Path) -> None:
    odd = tree / os.fsdecode(b"\xff %41\n")
    (tree / "example.com").rename(odd)
    before = looks(odd)
    deduped(store, tree)
    assert undone(store).left == []
    assert looks(odd) == before


def test_reflinks_are_refused_where_there_are_none(file_system: Callable[[str], Path]) -> None:
    place = file_system("tmpfs")
    (place / "tree").mkdir()
    with (
        Store.create(place / "store") as store,
        pytest.raises(OSError, match="no reflinks") as caught,
    ):
        plan([place / "tree"], store.blobs, Mode.REFLINK)
    assert caught.value.errno == errno.EOPNOTSUPP


def test_other_file_systems_are_refused(store: Store) -> None:
    with pytest.raises(OSError, match="another file system") as caught:
        plan([Path("/dev/shm"), Path("/proc")], store.blobs, Mode.AUTO)
    assert caught.value.errno == errno.EXDEV


def test_a_store_that_is_not_there_yet(store: Store, tree: Path, tmp_path: Path) -> None:
    dry = plan([tree], tmp_path, Mode.HARDLINK)
    assert dry.freed == deduped(store, tree).freed


def test_sparse_files_larger_than_the_disk(store: Store, tmp_path: Path) -> None:
    image = image_layout(tmp_path / "layout")
    path = image.blob(Digest("sha256", "0" * 64))
    with path.open("wb") as file:
        try:
            file.truncate(os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize + 1)
        except OSError:
            pytest.skip("no file can be that large here")
    made = planned(store, tmp_path / "layout")
    assert [left.why for left in made.left] == ["larger than its file system"]


def test_two_at_once(store: Store, tree: Path) -> None:
    plans = [planned(store, tree), planned(store, tree)]
    outcomes: list[Outcome] = []

    def run(number: int) -> None:
        with Store.open(store.path) as own:
            outcomes.append(carry_out(plans[number], own, DISK))

    threads = [threading.Thread(target=run, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 2
    assert broken(tree, store.path) == []
    deduped(store, tree)
    assert planned(store, tree).groups == []
