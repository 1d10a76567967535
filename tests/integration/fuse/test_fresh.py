"""What the kernel may believe, and for how long, while others change the store."""

import errno
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from ocistow.oci.digest import Digest
from ocistow.store.store import Store
from ocistow.testing.images import GeneratedImage
from ocistow.testing.mounts import Mount, mounted, wait_until

from .conftest import Mounter

pytestmark = pytest.mark.fuse

NAME = "registry.example/app:latest"
PATH = Path("registry.example", "app", "latest")
LOOKED_UP = 200


def test_an_image_that_was_removed_can_be_made_again_at_once(
    mount_store: Mounter, image: GeneratedImage
) -> None:
    """Nobody waits for the second in which the kernel still knows the old directories."""
    with mount_store() as mount, Store.open(mount.store) as store:
        target = mount.path / PATH
        for _ in range(5):
            shutil.copytree(image.path, target, dirs_exist_ok=True)
            assert (target / "blobs" / "sha256" / image.config.encoded).exists()
            store.find(NAME).remove()
            assert not target.exists()
            assert not os.access(target / "blobs", os.F_OK)


def test_a_file_that_was_removed_can_be_written_again_at_once(
    here: Path, shared_mount: Mount
) -> None:
    """The kernel, which knows it for a second, opens it, and asks for another only after ESTALE."""
    beside = shared_mount.layouts / here.name
    for content in ("one", "two", "three"):
        (here / "file").write_text(content)
        assert (beside / "file").read_text() == content
        (beside / "file").unlink()


def test_what_is_written_into_a_directory_that_was_removed_is_not_accepted(
    here: Path, shared_mount: Mount
) -> None:
    """It is not lost when it is closed, or later: it cannot even be opened."""
    layout = here / "layout"
    for name in ("blobs/sha256/new", "index.json", "file"):
        (layout / "blobs" / "sha256").mkdir(parents=True)
        os.listdir(layout / "blobs" / "sha256")
        shutil.rmtree(shared_mount.layouts / here.name / "layout")
        with pytest.raises(FileNotFoundError):
            os.close(os.open(layout / name, os.O_CREAT | os.O_WRONLY))


def test_the_kernel_hears_of_a_blob_that_the_pool_lost(
    fuse: None, engine: str, tmp_path: Path
) -> None:
    """It may believe for a day what one is like, and gets FUSE_NOTIFY_INVAL_INODE."""
    content = b"only in the pool"
    digest = Digest.of(content)
    with Store.create(tmp_path / "store") as store:
        with store.blobs.ingest() as ingest:
            ingest.write(content)
            ingest.commit(digest)
        with mounted(store.path, tmp_path / "mnt", "--engine", engine) as mount:
            blob = mount.path / "layout" / "blobs" / "sha256" / digest.encoded
            blob.parent.mkdir(parents=True)
            shown = os.open(blob, os.O_PATH)  # and no name, which is asked for more often
            assert os.fstat(shown).st_size == len(content)
            (store.blobs.path / digest.algorithm / digest.encoded).unlink()
            wait_until(lambda: is_stale(shown), "the blob is gone")
            os.close(shown)


def is_stale(file: int) -> bool:
    try:
        os.fstat(file)
    except OSError as error:
        return error.errno == errno.ESTALE
    return False


def test_two_mounts_of_a_store_show_each_others_changes(
    mount_store: Mounter, image: GeneratedImage, tmp_path: Path
) -> None:
    with mount_store() as one, mounted(one.store, tmp_path / "other") as other:
        for here, there in ((one, other), (other, one)):
            assert not (there.path / PATH).exists()
            shutil.copytree(image.path, here.path / PATH)
            index = (image.path / "index.json").read_bytes()
            wait_until((there.path / PATH / "index.json").exists, "the image is there")
            assert (there.path / PATH / "index.json").read_bytes() == index
            assert PATH.name in os.listdir(there.path / PATH.parent)
            shutil.rmtree(here.path / PATH)
            assert not (there.path / PATH).exists()
            assert os.listdir(there.path / PATH.parent) == []
            (here.path / PATH.parent).rmdir()
        assert one.warnings == other.warnings == []


def test_a_known_name_costs_two_system_calls_at_most(
    mount_store: Mounter, image: GeneratedImage, tmp_path: Path
) -> None:
    if shutil.which("strace") is None or os.geteuid() != 0:
        pytest.skip("only root can look at a server with strace")
    with mount_store() as mount:
        layout = mount.path / "layout"
        shutil.copytree(image.path, layout)
        layer = layout / "blobs" / "sha256" / image.layers[0].encoded
        for name, calls in ((layout / "index.json", 2), (layout / "blobs", 2), (layer, 0)):
            assert name.exists()
            lines = traced(mount, name, tmp_path / "trace")
            assert len(lines) <= calls * LOOKED_UP + 10, lines[-10:]
            assert not [line for line in lines if "sqlite" in line or "flock" in line]


def traced(mount: Mount, name: Path, output: Path) -> list[str]:
    """Return the server's system calls on files while a client asks for a name again and again."""
    calls = "trace=%file,fstat,pread64,getdents64,flock"
    command = ["strace", "-f", "-e", calls, "-o", str(output), "-p", str(mount.pid)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        assert "attached" in strace.stderr.readline()
        for _ in range(LOOKED_UP):
            os.stat(name)
        strace.send_signal(signal.SIGINT)
        strace.communicate(timeout=60)
    return [line for line in output.read_text().splitlines() if "(" in line]
