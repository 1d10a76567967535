"""Links on the file systems that people have: which way is taken, and what is said otherwise."""

import errno
import json
import os
import tempfile
import traceback
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from ocistow.oci.digest import Digest
from ocistow.oci.reference import Reference
from ocistow.publish.linking import Linked, link, places
from ocistow.store.links import AUTO, Links, Way
from ocistow.store.reading import open_directory
from ocistow.store.store import Store
from ocistow.testing.filesystems import full, mounted, read_only
from ocistow.testing.invariants import images, strays, violations
from ocistow.testing.minimal import minimal_image

NAME = Reference.parse("example.com/app:1")
OTHER = Reference.parse("example.com/app:2")
SIZE = 8 << 20  # bytes; of a layer, far more than what file systems need for names
A = minimal_image("a", ["one", "two" + "x" * SIZE])
B = minimal_image("b", ["three", "two" + "x" * SIZE])
LAYER = Digest.of(b"layer two" + b"x" * SIZE)
NOBODY = 65534
COUNT = len(A.blobs)

FileSystem = Callable[[str], Path]
FUSE = pytest.mark.fuse


def store_at(path: Path) -> Path:
    with Store.create(path) as store:
        for name, image in ((NAME, A), (OTHER, B)):
            image.add_to(store.blobs)
            store.put(name, image.root)
    return path


def made(
    store: Path, out: Path, *ways: Way, names: tuple[Reference, ...] = (NAME,)
) -> list[Linked]:
    with Store.open(store) as opened:
        links = Links(opened.blobs, ways or AUTO)
        where = places([name.path for name in names], out)
        return [
            link(opened, opened.layout(name.path), place, links)
            for name, place in zip(names, where, strict=True)
        ]


def ways(linked: Linked) -> dict[Way | None, int]:
    return {way: blobs for way, (blobs, _) in linked.ways.items()}


def layer_of(out: Path, name: Reference = NAME) -> Path:
    return out / name.path / "blobs" / "sha256" / LAYER.encoded


def used(path: Path) -> int:
    """Return the bytes that a file system has used, once it knows."""
    os.sync()
    status = os.statvfs(path)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def is_whole(out: Path, name: Reference = NAME) -> bool:
    layout = out / name.path
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    blobs = {path.name: path.read_bytes() for path in (layout / "blobs/sha256").iterdir()}
    image = A if name is NAME else B
    return entry["digest"] == str(image.root.digest) and blobs == {
        digest.encoded: content for digest, content in image.blobs.items()
    }


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_reflinks_take_no_room_and_are_independent(kind: str, file_system: FileSystem) -> None:
    path = file_system(kind)
    store, out = store_at(path / "store"), path / "out"
    before = used(path)
    (linked,) = made(store, out, Way.REFLINK)
    assert ways(linked) == {Way.REFLINK: COUNT}
    assert used(path) - before < SIZE / 4
    assert is_whole(out)
    layer = layer_of(out)
    assert layer.stat().st_nlink == 1
    assert layer.stat().st_mode & 0o200  # whoever has the layout may write to it
    with layer.open("r+b") as file:
        file.write(b"LAYER")
    assert violations(store) == []
    assert ways(made(store, out, Way.REFLINK)[0]) == {None: COUNT - 1, Way.REFLINK: 1}
    assert is_whole(out)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs"])
def test_hard_links_come_first_where_there_are_any(kind: str, file_system: FileSystem) -> None:
    path = file_system(kind)
    store, out = store_at(path / "store"), path / "out"
    (linked,) = made(store, out)
    assert ways(linked) == {Way.HARDLINK: COUNT}
    assert layer_of(out).samefile(store / "blobs" / "sha256" / LAYER.encoded)


@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
def test_what_cannot_share_bytes_refuses_reflinks(kind: str, file_system: FileSystem) -> None:
    path = file_system(kind)
    store = store_at(path / "store")
    with pytest.raises(OSError, match="no reflink can be made: the file system cannot share"):
        made(store, path / "out", Way.REFLINK)
    assert not (path / "out").exists()


def test_another_file_system_gets_one_copy_of_each_blob(
    tmp_path: Path, file_system: FileSystem
) -> None:
    store, out = store_at(tmp_path / "store"), file_system("ext4") / "out"
    first, second = made(store, out, names=(NAME, OTHER))
    assert ways(first) == {Way.COPY: COUNT}
    shared = len(A.blobs.keys() & B.blobs.keys())
    assert shared
    assert ways(second) == {Way.HARDLINK: shared, Way.COPY: COUNT - shared}
    assert layer_of(out).samefile(layer_of(out, OTHER))
    assert is_whole(out)
    assert is_whole(out, OTHER)
    assert "another file system than the store" in first.obstacles[Way.HARDLINK]
    assert [ways(one) for one in made(store, out, names=(NAME, OTHER))] == [{None: COUNT}] * 2


@FUSE
def test_a_file_system_without_links_gets_copies(tmp_path: Path, file_system: FileSystem) -> None:
    store, out = store_at(tmp_path / "store"), file_system("exfat") / "out"
    for one in made(store, out, names=(NAME, OTHER)):
        assert ways(one).get(Way.HARDLINK) is None
    assert [ways(one) for one in made(store, out, names=(NAME, OTHER))] == [{None: COUNT}] * 2
    assert is_whole(out, OTHER)
    assert not list(out.rglob(".*"))
    for way, word in ((Way.HARDLINK, "hard"), (Way.REFLINK, "ref"), (Way.SYMLINK, "symbolic ")):
        with pytest.raises(OSError, match=f"no {word} ?link can be made: "):
            made(store, out.parent / way, way)
        assert not (out.parent / way).exists()


@FUSE
def test_a_store_says_what_it_needs(file_system: FileSystem) -> None:
    path = file_system("exfat")
    with pytest.raises(OSError, match="a file system with unnamed files") as caught:
        Store.create(path / "deep" / "store")
    assert caught.value.errno == errno.EOPNOTSUPP
    assert os.listdir(path) == []


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_store_that_is_read_only_gives_what_it_can(kind: str, file_system: FileSystem) -> None:
    path = file_system(kind)
    store = store_at(path / "store")
    with read_only(store):
        (linked,) = made(store, path / "out")
    assert ways(linked) == {Way.REFLINK if kind == "xfs" else Way.COPY: COUNT}
    assert "another mount than the store" in linked.obstacles[Way.HARDLINK]
    assert is_whole(path / "out")


def test_a_target_that_is_read_only_stays_as_it_is(file_system: FileSystem) -> None:
    path = file_system("ext4")
    store = store_at(path / "store")
    made(store, path / "out")
    with read_only(path / "out"):
        for names in ((NAME,), (OTHER,)):
            with pytest.raises(OSError, match="Read-only file system"):
                made(store, path / "out", names=names)
    assert is_whole(path / "out")
    assert not (path / "out" / OTHER.path).exists()


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", pytest.param("exfat", marks=FUSE)])
def test_a_full_target_keeps_what_it_had(
    kind: str, tmp_path: Path, file_system: FileSystem
) -> None:
    path = file_system(kind)
    store, out = store_at(tmp_path / "store"), path / "out"
    made(store, out, Way.COPY)
    with full(path, left=SIZE // 2), pytest.raises(OSError, match="No space left"):
        made(store, out, Way.COPY, names=(OTHER,))
    assert is_whole(out)
    assert not (out / OTHER.path / "index.json").exists()
    assert not list(out.rglob(".*"))
    made(store, out, Way.COPY, names=(OTHER,))
    assert is_whole(out, OTHER)


@pytest.mark.slow
def test_a_blob_with_65000_links_gets_a_successor(file_system: FileSystem) -> None:
    """Whoever links it then, a layout of the store or one outside, takes the new file."""
    path = file_system("ext4")
    store, many = store_at(path / "store"), path / "many"
    pool = store / "blobs" / "sha256" / LAYER.encoded
    many.mkdir()
    directory = open_directory(many)
    for number in range(os.pathconf(many, "PC_LINK_MAX") - pool.stat().st_nlink):
        os.link(pool, str(number), dst_dir_fd=directory)
    os.close(directory)
    assert pool.stat().st_nlink == 65_000
    exhausted = pool.stat().st_ino
    with read_only(store / "blobs" / "sha256"):  # nobody can put a successor in its place
        with pytest.raises(OSError, match="no hard link can be made"):
            made(store, path / "refused", Way.HARDLINK)
        assert Way.COPY in ways(made(store, path / "copied")[0])
    (linked,) = made(store, path / "out")
    assert ways(linked) == {Way.HARDLINK: COUNT}
    assert is_whole(path / "out")
    assert pool.stat().st_ino == layer_of(path / "out").stat().st_ino != exhausted
    with Store.open(store) as opened:
        opened.put(Reference.parse("example.com/app:3"), A.root)
    assert pool.stat().st_nlink == 3
    assert violations(store) == []
    assert strays(store) == []
    assert len(images(store)) == 3


@pytest.fixture
def open_to_all(file_system: FileSystem) -> Generator[Path]:
    file_system("ext4")  # or skip
    with tempfile.TemporaryDirectory() as above:
        Path(above).chmod(0o755)
        with mounted("ext4", Path(above) / "ext4") as path:
            yield path


def as_nobody(action: Callable[[], None]) -> None:
    """Do something in a process of a user who owns nothing; it must not raise."""
    if (child := os.fork()) == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            action()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_links_to_files_of_others_may_be_protected(open_to_all: Path) -> None:
    """The sysctl fs.protected_hardlinks, which every distribution sets; see proc(5)."""
    if Path("/proc/sys/fs/protected_hardlinks").read_text().strip() != "1":
        pytest.skip("fs.protected_hardlinks is not set")
    store, out = store_at(open_to_all / "store"), open_to_all / "out"
    out.mkdir()
    os.chown(out, NOBODY, NOBODY)

    def link_them() -> None:
        with pytest.raises(OSError, match="another user's"):
            made(store, out, Way.HARDLINK)
        assert os.listdir(out) == []
        (linked,) = made(store, out)
        assert ways(linked) == {Way.COPY: COUNT}
        assert "another user's" in linked.obstacles[Way.HARDLINK]

    as_nobody(link_them)
    assert is_whole(out)
    assert layer_of(out).stat().st_uid == NOBODY
