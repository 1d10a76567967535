"""Other processes work on the store while it is mounted."""

import hashlib
import mmap
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ocistow.oci.digest import Digest
from ocistow.store.store import Store
from ocistow.testing.images import GeneratedImage, image_layout
from ocistow.testing.mounts import Mount, command_line, environment, mounted, run, wait_until

from .conftest import Mounter

pytestmark = pytest.mark.fuse


def ocistow(mount: Mount, *arguments: str) -> None:
    done = run(mount.store, *arguments)
    assert done.returncode == 0, done.stderr


def index_of(layout: Path) -> bytes:
    try:
        return (layout / "index.json").read_bytes()
    except FileNotFoundError:
        return b""


def files_of(layout: Path) -> dict[str, bytes]:
    files = (path for path in layout.rglob("*") if path.is_file())
    return {str(path.relative_to(layout)): path.read_bytes() for path in files}


def test_what_other_commands_do_is_soon_seen(
    mount_store: Mounter, image: GeneratedImage, tmp_path: Path
) -> None:
    other = image_layout(tmp_path / "other", seed=31, layers=2)
    with mount_store() as mount:
        layout = mount.path / "registry.example" / "app" / "latest"
        assert not layout.exists()
        ocistow(mount, "add", f"oci:{image.path}:latest", "registry.example/app:latest")
        wait_until(lambda: str(image.manifest).encode() in index_of(layout), "the image is there")
        layer = layout / "blobs" / "sha256" / image.layers[0].encoded
        assert hashlib.sha256(layer.read_bytes()).hexdigest() == image.layers[0].encoded
        ocistow(mount, "add", f"oci:{other.path}:latest", "registry.example/app:latest")
        assert str(other.manifest).encode() in index_of(layout)
        ocistow(mount, "tag", "registry.example/app:latest", "registry.example/app:other")
        tagged = layout.with_name("other")
        wait_until(tagged.exists, "the other name is there")
        assert str(other.manifest).encode() in index_of(tagged)
        ocistow(mount, "rm", "registry.example/app:latest")
        wait_until(lambda: not layout.exists(), "the image is gone")
        assert index_of(layout) == b""
        ocistow(mount, "add", f"oci:{image.path}:latest", "registry.example/app:latest")
        wait_until(lambda: str(image.manifest).encode() in index_of(layout), "it is there again")
        assert mount.warnings == []


def test_an_image_that_is_removed_while_it_is_used(
    mount_store: Mounter, image: GeneratedImage, tmp_path: Path
) -> None:
    other = image_layout(tmp_path / "other", seed=31, layers=2, base=image)
    with mount_store() as mount:
        names = [f"registry.example/app:{tag}" for tag in ("one", "two")]
        for name, source in zip(names, (image, other), strict=True):
            ocistow(mount, "add", f"oci:{source.path}:latest", name)
        app = mount.path / "registry.example" / "app"
        archives = mount.path / ".archives" / "registry.example" / "app"
        layer = app / "one" / "blobs" / "sha256" / image.layers[0].encoded
        with layer.open("rb") as file, (archives / "one.oci.tar").open("rb") as archive:
            ocistow(mount, "rm", names[0])
            ocistow(mount, "gc")
            assert hashlib.sha256(file.read()).hexdigest() == image.layers[0].encoded
            archive.read()
        wait_until(lambda: not (app / "one").exists(), "the image is gone")
        assert os.listdir(app) == ["two"]
        assert not (archives / "one.oci.tar").exists()
        shutil.copytree(app / "two", tmp_path / "copy")
        assert files_of(tmp_path / "copy" / "blobs") == files_of(other.path / "blobs")
        out = tmp_path / "two.tar"
        ocistow(mount, "publish", names[1], f"oci-archive:{out}")
        assert (archives / "two.oci.tar").read_bytes() == out.read_bytes()
        shutil.copytree(image.path, app / "one")
        assert files_of(app / "one") == files_of(image.path)
        assert names[0] in run(mount.store, "ls").stdout
        ocistow(mount, "verify")


def test_what_is_written_here_is_seen_by_other_commands(
    mount_store: Mounter, image: GeneratedImage
) -> None:
    with mount_store() as mount:
        target = mount.path / "registry.example" / "app" / "latest"
        target.parent.mkdir(parents=True)
        shutil.copytree(image.path, target)
        assert "registry.example/app:latest" in run(mount.store, "ls").stdout


def test_a_blob_that_is_gone_is_not_read_from_the_cache_as_another(
    file_system: Callable[[str], Path], tmp_path: Path
) -> None:
    """ext4 soon gives the number of a removed file to the next one."""
    with mounted(file_system("ext4") / "store", tmp_path / "mnt") as mount:
        blobs = mount.path / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        numbers: set[int] = set()
        for round_ in range(12):
            content = bytes([round_]) * 10_000
            with Store.open(mount.store) as store:
                digest = store.blobs.add([content])
                store.blobs.sync()
            blob = blobs / digest.encoded
            assert blob.read_bytes() == content
            with (
                blob.open("rb") as file,
                mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ) as mapped,
            ):
                assert mapped[:] == content
            pool = mount.store / "blobs" / "sha256" / digest.encoded
            numbers.add(pool.stat().st_ino)
            pool.unlink()
        assert len(numbers) < 12


def test_a_blob_that_was_collected_is_soon_absent(mount_store: Mounter) -> None:
    with mount_store() as mount:
        blobs = mount.path / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        content = b"collected"
        with Store.open(mount.store) as store:
            digest = store.blobs.add([content])
        blob = blobs / digest.encoded
        assert blob.exists()  # which is all that go-containerregistry asks before it writes nothing
        (mount.store / "blobs" / "sha256" / digest.encoded).unlink()
        wait_until(lambda: not blob.exists(), "it is not promised any more")
        blob.write_bytes(content)
        assert blob.read_bytes() == content


COUNTING = """
import sys
from ocistow.cli.main import main
from ocistow.fusefs.filesystem import FileSystem

original = FileSystem.close

async def close(self):
    print("nodes", len(self._view.tree), "handles", len(self._handles), file=sys.stderr, flush=True)
    await original(self)

FileSystem.close = close
sys.argv[0] = "ocistow"
main()
"""


def test_the_kernels_and_our_table_of_inodes_shrink_together(
    fuse: None, tmp_path: Path, forget: Callable[[Path], None]
) -> None:
    (tmp_path / "mnt").mkdir()
    _, *arguments = command_line(tmp_path / "store", "mount", str(tmp_path / "mnt"))
    process = subprocess.Popen(
        [sys.executable, "-c", COUNTING, *arguments[2:]],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    mount = Mount(tmp_path / "store", tmp_path / "mnt", process)
    try:
        mount.wait_until_usable()
        use_every_way_to_learn_of_an_inode(mount.path)
        forget(mount.path)
        os.statvfs(mount.path)
        assert mount.stop() == 0
    finally:
        mount.end()
    [line] = mount.log.wait_for("^nodes")
    _, nodes, _, handles = line.split()
    assert int(nodes) <= 12  # the root, and what the kernel had just touched
    assert int(handles) == 0


def use_every_way_to_learn_of_an_inode(path: Path) -> None:
    blobs = path / "layout" / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for number in range(100):
        content = b"%d" % number
        name = hashlib.sha256(content).hexdigest()
        (blobs / "temporary").write_bytes(content)
        (blobs / "temporary").rename(blobs / name)
        (blobs / name).write_bytes(content)
        (path / f"link-{number}").hardlink_to(blobs / name)
        (path / f"file-{number}").write_bytes(content)
        (path / f"other-{number}").hardlink_to(path / f"file-{number}")
        (path / f"symlink-{number}").symlink_to("nowhere")
        (path / f"directory-{number}").mkdir()
        (path / f"file-{number}").rename(path / f"renamed-{number}")
        (path / "layout" / "index.json").write_bytes(b'{"schemaVersion":2,"manifests":[]}')
    for _ in range(3):
        for directory in (path, path / "layout", blobs):
            with os.scandir(directory) as entries:
                assert all(entry.stat(follow_symlinks=False) for entry in entries)


def test_a_digest_of_the_library_names_the_same_file(mount_store: Mounter) -> None:
    with mount_store() as mount:
        with Store.open(mount.store) as store:
            digest = store.blobs.add([b"content"])
            assert isinstance(digest, Digest)
            number = store.blobs.stat(digest).st_ino
        for layout in ("a", "b"):
            blobs = mount.path / layout / "blobs" / "sha256"
            blobs.mkdir(parents=True)
            assert (blobs / digest.encoded).stat().st_ino == number
