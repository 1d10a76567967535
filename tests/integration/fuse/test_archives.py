"""`.archives`: every image as archives that nobody wrote."""

import errno
import json
import mmap
import os
import subprocess
import tarfile
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocistow.oci.reference import Reference
from ocistow.publish.copy import copy
from ocistow.publish.layout import LayoutSource, StoreSink
from ocistow.store.store import Store
from ocistow.testing.images import artifact_layout, image_layout, index_layout, sparse_layout
from ocistow.testing.mounts import Mount, command_line, environment, mounted, run

from ..conftest import Dockerd
from .conftest import Mounter, Run

pytestmark = pytest.mark.fuse

FORMS = ("oci", "docker")
PLACE = "example.org/team"
NAMES = ("app/1", "app/2", "app/zstd", "both/1")
SIZE = 700_000  # bytes of a layer: more than a request, and several in an archive


def put(store: Path, layout: Path, name: str) -> None:
    with Store.open(store) as opened:
        copy(LayoutSource(layout), StoreSink(opened, Reference.parse(f"example.org/{name}")))


def published(store: Path, name: str, form: str) -> bytes:
    """Return what `ocistow publish` writes to standard output."""
    command = command_line(store, "publish", name, f"{form}-archive:-")
    return subprocess.run(command, env=environment(), check=True, capture_output=True).stdout


def archive(mount: Mount, name: str, form: str = "oci") -> Path:
    return mount.path / ".archives" / f"{name}.{form}.tar"


@pytest.fixture(scope="module")
def shelf(fuse: None, tmp_path_factory: pytest.TempPathFactory) -> Generator[Mount]:
    """A mount of a few images of all kinds."""
    path = tmp_path_factory.mktemp("archives")
    Store.create(path / "store").close()
    image_layout(path / "a", layers=3, layer_size=SIZE, compression="none")
    put(path / "store", path / "a", "team/app:1")
    image_layout(path / "b", seed=2, layers=0)
    put(path / "store", path / "b", "team/app:2")
    image_layout(path / "c", seed=3, layer_size=SIZE, compression="zstd")
    put(path / "store", path / "c", "team/app:zstd")
    put(path / "store", index_layout(path / "d", layer_size=SIZE).path, "team/both:1")
    artifact_layout(path / "e", [b"no image"])
    put(path / "store", path / "e", "team/artifact:1")
    with mounted(path / "store", path / "mnt") as mount:
        yield mount


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_an_archive_is_what_publishing_writes(shelf: Mount, name: str, form: str) -> None:
    file = archive(shelf, f"{PLACE}/{name}", form)
    expected = published(shelf.store, f"{PLACE}/{name}", form)
    assert file.stat().st_size == len(expected)
    assert file.read_bytes() == expected


def test_it_is_read_at_any_offset(shelf: Mount) -> None:
    path = archive(shelf, f"{PLACE}/both/1")
    expected = path.read_bytes()
    file = os.open(path, os.O_RDONLY)

    @settings(max_examples=60)
    @given(offset=st.integers(0, len(expected) + 10), size=st.integers(0, len(expected)))
    def read(offset: int, size: int) -> None:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)  # so that the mount is asked again
        assert os.pread(file, size, offset) == expected[offset : offset + size]

    try:
        read()
    finally:
        os.close(file)


def test_it_is_read_directly_and_mapped(shelf: Mount) -> None:
    path = archive(shelf, f"{PLACE}/app/1", "docker")
    expected = path.read_bytes()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[1_000_000:1_000_100] == expected[1_000_000:1_000_100]
        assert mapped[-10:] == expected[-10:]
    direct = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        assert os.pread(direct, 1 << 20, 4096) == expected[4096 : 4096 + (1 << 20)]
    finally:
        os.close(direct)


def test_it_is_found_by_name_and_not_listed(shelf: Mount) -> None:
    assert os.listdir(shelf.path) == ["example.org"]
    assert not [path for path in shelf.path.rglob("*") if ".archives" in path.parts[-3:]]
    top = shelf.path / ".archives"
    assert top.is_dir()
    assert os.listdir(top) == ["example.org"]
    assert sorted(os.listdir(top / PLACE / "app")) == [
        f"{tag}.{form}.tar" for tag in ("1", "2", "zstd") for form in sorted(FORMS)
    ]
    assert os.listdir(top / PLACE / "artifact") == ["1.oci.tar"]
    for absent in (
        "x",
        "x.oci.tar",
        f"{PLACE}/app/1",
        f"{PLACE}/app/1.tar",
        f"{PLACE}/app.oci.tar",
    ):
        with pytest.raises(FileNotFoundError):
            (top / absent).stat()


def test_inodes_stay_and_belong_to_one_archive(shelf: Mount) -> None:
    directory = shelf.path / ".archives" / PLACE / "app"
    with os.scandir(directory) as entries:
        listed = {entry.name: entry.inode() for entry in entries}
    assert len(set(listed.values())) == len(listed) == 6
    assert {name: (directory / name).stat().st_ino for name in listed} == listed
    status = (directory / "1.oci.tar").stat()
    assert status.st_mode == 0o100444
    assert status.st_blocks * 512 >= status.st_size
    assert status.st_mtime_ns == (shelf.layouts / PLACE / "app/1/index.json").stat().st_mtime_ns


def changes(top: Path) -> dict[str, Callable[[], object]]:
    file = top / PLACE / "app/1.oci.tar"
    return {
        "write": lambda: file.open("r+b"),
        "cut": lambda: os.truncate(file, 0),
        "create": lambda: (top / "new").write_bytes(b""),
        "create an archive": lambda: (file.with_name("new.oci.tar")).write_bytes(b""),
        "unlink": file.unlink,
        "chmod": lambda: file.chmod(0o600),
        "utime": lambda: os.utime(file),
        "chown": lambda: os.chown(file, 1, 1),
        "rename": lambda: file.rename(file.with_name("other")),
        "rename out": lambda: file.rename(top.parent / "other"),
        "rename in": lambda: (top.parent / "example.org").rename(top / "other"),
        "rename itself": lambda: top.rename(top.with_name("other")),
        "rename onto itself": lambda: (top.parent / "example.org").rename(top),
        "link in": lambda: os.link(top.parent / PLACE / "app/1/oci-layout", top / "x"),
        "symlink": lambda: (top / "x").symlink_to("y"),
        "mkdir": lambda: (top / "x").mkdir(),
        "rmdir": lambda: (top / PLACE).rmdir(),
        "rmdir itself": top.rmdir,
        "chmod itself": lambda: top.chmod(0o700),
    }


@pytest.mark.parametrize("change", changes(Path()))
def test_nothing_can_be_changed(shelf: Mount, change: str) -> None:
    with pytest.raises(OSError, match=r"Read-only file system|Permission denied") as raised:
        changes(shelf.path / ".archives")[change]()
    assert raised.value.errno == errno.EROFS
    assert archive(shelf, f"{PLACE}/app/1").exists()


def test_it_cannot_be_linked_elsewhere_and_can_be_copied(shelf: Mount, run_tool: Run) -> None:
    file, copy = archive(shelf, f"{PLACE}/app/2"), shelf.path / "copy.tar"
    with pytest.raises(OSError, match="cross-device"):
        os.link(file, copy)
    run_tool("cp", "--archive", file, copy)
    assert copy.read_bytes() == file.read_bytes()
    copy.unlink()


def test_names_are_any_bytes(shelf: Mount, tmp_path: Path) -> None:
    image_layout(tmp_path / "layout", seed=5)
    for name in ("büro/größe", os.fsdecode(b"\xff\xfe/\x80"), "with space/a\tb"):
        run_tool = ["cp", "-r", str(tmp_path / "layout"), str(shelf.path / name)]
        (shelf.path / name).parent.mkdir()
        subprocess.run(run_tool, check=True)
        listed = os.listdir(shelf.path / ".archives" / Path(name).parent)
        assert sorted(listed) == [f"{Path(name).name}.{form}.tar" for form in sorted(FORMS)]
        for form in FORMS:
            found = archive(shelf, name, form).read_bytes()
            if name.isprintable():
                assert found == published(shelf.store, name, form)
            assert len(found) == archive(shelf, name, form).stat().st_size
        subprocess.run(["rm", "-r", str((shelf.path / name).parent)], check=True)


def test_tar_reads_it(shelf: Mount, run_tool: Run) -> None:
    names = run_tool("tar", "--list", "--file", archive(shelf, f"{PLACE}/app/1", "docker"))
    assert names.splitlines()[:3] == ["oci-layout", "index.json", "manifest.json"]
    with tarfile.open(archive(shelf, f"{PLACE}/app/1", "docker")) as tar:
        for member in tar:
            content = tar.extractfile(member)
            assert content is not None
            assert len(content.read()) == member.size


@pytest.mark.tools
@pytest.mark.parametrize("form", FORMS)
def test_skopeo_reads_it(shelf: Mount, tmp_path: Path, run_tool: Run, form: str) -> None:
    layout = shelf.layouts / PLACE / "app/1"
    [described] = json.loads((layout / "index.json").read_bytes())["manifests"]
    manifest = json.loads(
        (layout / "blobs/sha256" / described["digest"].partition(":")[2]).read_bytes()
    )
    source = f"{form}-archive:{archive(shelf, f'{PLACE}/app/1', form)}"
    assert json.loads(run_tool("skopeo", "inspect", "--config", source))["rootfs"]["diff_ids"]
    run_tool("skopeo", "copy", source, f"dir:{tmp_path / 'out'}")
    copied = json.loads((tmp_path / "out/manifest.json").read_bytes())
    assert copied["config"]["digest"] == manifest["config"]["digest"]


@pytest.mark.podman
def test_podman_loads_it(
    shelf: Mount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_tool: Run
) -> None:
    (tmp_path / "storage.conf").write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{tmp_path}/root"\nrunroot = "{tmp_path}/run"\n'
    )
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(tmp_path / "storage.conf"))
    for form in FORMS:
        run_tool("podman", "load", "--input", archive(shelf, f"{PLACE}/app/1", form))
    assert len(set(run_tool("podman", "images", "--quiet", "--no-trunc").split())) == 1


@pytest.mark.docker
def test_docker_loads_it(shelf: Mount, dockerd: Dockerd) -> None:
    said = dockerd.run("load", "--input", str(archive(shelf, f"{PLACE}/app/1", "docker")))
    loaded = said.split()[-1]
    assert json.loads(dockerd.run("inspect", loaded))[0]["RootFS"]["Layers"]
    dockerd.run("rmi", loaded)


def test_an_open_archive_stays_as_it_is(mount_store: Mounter, tmp_path: Path) -> None:
    image_layout(tmp_path / "a", seed=1, layer_size=SIZE, compression="none")
    image_layout(tmp_path / "b", seed=2)
    Store.create(tmp_path / "store").close()
    put(tmp_path / "store", tmp_path / "a", "app:1")
    with mount_store() as mount:
        path = archive(mount, "example.org/app/1")
        first, status = published(mount.store, "example.org/app:1", "oci"), path.stat()
        with path.open("rb") as old:
            put(mount.store, tmp_path / "b", "app:1")
            assert run(mount.store, "gc", "--grace", "0s").returncode == 0
            second = published(mount.store, "example.org/app:1", "oci")
            assert path.read_bytes() == second != first
            assert path.stat().st_ino != status.st_ino
            assert path.stat().st_size == len(second)
            with path.open("rb") as new:
                assert (old.read(), new.read()) == (first, second)
            assert os.fstat(old.fileno()).st_size == len(first)
            put(mount.store, tmp_path / "a", "app:1")
            assert path.read_bytes() == first
            assert run(mount.store, "rm", "example.org/app:1").returncode == 0
            with pytest.raises(FileNotFoundError):
                path.stat()
            old.seek(1000)
            assert old.read() == first[1000:]
        mount.await_no_unnamed_files()  # as the blobs are that nothing mentions any more


def test_a_sparse_image_says_that_it_lacks_something(mount_store: Mounter, tmp_path: Path) -> None:
    image = sparse_layout(tmp_path / "a")
    Store.create(tmp_path / "store").close()
    put(tmp_path / "store", image.path, "app:1")
    with mount_store("--read-only") as mount:
        path = archive(mount, "example.org/app/1")
        size = path.stat().st_size
        with pytest.raises(OSError, match="No data available") as raised:
            path.open("rb")
        assert raised.value.errno == errno.ENODATA
        mount.log.wait_for("WARNING .*no archive example.org/app/1.oci.tar: sha256:")
        put(mount.store, image_layout(tmp_path / "b").path, "other:1")
        assert len(path.read_bytes()) == size


def test_a_directory_that_was_moved_leads_nowhere_else(
    mount_store: Mounter, tmp_path: Path
) -> None:
    (tmp_path / "secret/dir/example").mkdir(parents=True)
    image_layout(tmp_path / "secret/image")
    with mount_store() as mount:
        (mount.path / "a/dir").mkdir(parents=True)
        top = mount.path / ".archives"
        for shown in (top / "a", top / "a/dir"):
            shown.stat()
        held = os.open(top / "a", os.O_RDONLY)
        (mount.path / "a").rename(mount.path / "b")
        (mount.path / "a").symlink_to(tmp_path / "secret")
        assert os.listdir(top) == ["b"]
        for name in ("dir/example", "image.oci.tar"):
            with pytest.raises(FileNotFoundError):
                os.stat(name, dir_fd=held)
        assert os.listdir(held) == []  # what was removed while it is open reads as empty
        os.close(held)
