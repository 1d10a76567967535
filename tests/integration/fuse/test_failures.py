"""What comes of failures below and around a mount: the table in docs/monitoring.md."""

import errno
import fcntl
import hashlib
import os
import random
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from ocistow.testing import filesystems
from ocistow.testing.images import GeneratedImage
from ocistow.testing.mounts import Mount, mount_points, mounted, run

from .conftest import Mounter

pytestmark = pytest.mark.fuse

EXT4_IOC_SHUTDOWN = 0x8004587D  # ext4.h; every call gets EIO from then on
NOLOGFLUSH = 2


@pytest.fixture
def disk(fuse: None, tmp_path: Path) -> Generator[Path]:
    """An ext4 of its own."""
    try:
        with filesystems.mounted("ext4", tmp_path / "disk") as path:
            yield path
    except filesystems.Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def on_disk(disk: Path, tmp_path: Path, image: GeneratedImage) -> Generator[Mount]:
    """A mount of a store there, which has an image."""
    with mounted(disk / "store", tmp_path / "mnt") as mount:
        shutil.copytree(image.path, mount.path / "image")
        yield mount


def name_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_and_sync(file: int) -> None:
    os.write(file, b"x" * 100_000)
    os.fsync(file)


def test_a_disk_that_fails_gives_errors_and_the_mount_stays(on_disk: Mount, disk: Path) -> None:
    path = on_disk.path / "image" / "blobs" / "sha256" / "temporary"
    file = os.open(path, os.O_CREAT | os.O_WRONLY)
    directory = os.open(disk, os.O_RDONLY)
    try:
        fcntl.ioctl(directory, EXT4_IOC_SHUTDOWN, NOLOGFLUSH.to_bytes(4, "little"))
    finally:
        os.close(directory)
    with pytest.raises(OSError, match="Input/output error"):
        write_and_sync(file)
    os.close(file)
    with pytest.raises(OSError, match="Input/output error"):
        (on_disk.path / "new").mkdir()
    with pytest.raises(OSError, match="Input/output error"):
        (on_disk.path / "image" / "index.json").write_bytes(b"{}")
    assert on_disk.is_alive
    assert on_disk.stop() == 0
    assert on_disk.path not in mount_points()
    assert on_disk.log.matching("^(ERROR|Traceback)") == []


@pytest.fixture
def losing(small: Path) -> Generator[Path]:
    """An ext4 on a disk that is smaller than it believes."""
    try:
        with filesystems.mounted("ext4", small / "disk", options="noload") as path:
            yield path
    except filesystems.Unavailable as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", ["blobs/sha256/temporary", "ordinary"])
def test_what_the_disk_has_lost_does_not_become_a_blob(
    losing: Path, small: Path, tmp_path: Path, name: str
) -> None:
    """The system says once that the disk failed, to who syncs then; a second sync succeeds."""
    content = random.Random(name).randbytes(18 << 20)  # so that it is begun before it is synced
    with (
        mounted(losing / "store", tmp_path / "mnt") as mount,
        filesystems.full(small, left=2 << 20),
    ):
        path = mount.path / "image" / name
        blob = path.parents[name.count("/")] / "blobs" / "sha256" / name_of(content)
        blob.parent.mkdir(parents=True)
        file = os.open(path, os.O_CREAT | os.O_WRONLY)
        os.write(file, content)
        with pytest.raises(OSError, match=r"No space|Input/output"):
            os.fsync(file)
        for _ in range(3):
            with suppress(OSError):
                os.fsync(file)
        with suppress(OSError):
            os.close(file)
        for _ in range(4):
            with pytest.raises(OSError, match=r"No space|Input/output"):
                path.rename(blob)
        assert not (mount.store / "blobs" / "sha256" / blob.name).exists()
        mount.kill()  # what is left of it in memory cannot be written


def test_a_store_that_becomes_read_only_is_still_read(
    on_disk: Mount, disk: Path, image: GeneratedImage
) -> None:
    # as after an error with errors=remount-ro; what is open for writing forbids the plain one
    subprocess.run(["mount", "-o", "remount,abort", str(disk)], check=True, capture_output=True)
    for digest in image.layers:
        blob = on_disk.path / "image" / "blobs" / "sha256" / digest.encoded
        assert name_of(blob.read_bytes()) == digest.encoded
    changes: list[Callable[[], object]] = [
        lambda: (on_disk.path / "new").mkdir(),
        lambda: (on_disk.path / "image" / "index.json").unlink(),
    ]
    for change in changes:
        with pytest.raises(OSError, match="Read-only"):
            change()
    assert on_disk.stop() == 0


def test_a_store_that_is_removed_leaves_a_mount_that_can_be_unmounted(
    mount_store: Mounter, image: GeneratedImage
) -> None:
    with mount_store() as mount:
        shutil.copytree(image.path, mount.path / "image")
        layer = mount.path / "image" / "blobs" / "sha256" / image.layers[0].encoded
        with layer.open("rb") as stream:
            shutil.rmtree(mount.store)
            assert name_of(stream.read()) == image.layers[0].encoded
        with pytest.raises(OSError, match=r"No such file|Stale") as caught:
            (mount.path / "another").mkdir()
        assert caught.value.errno in (errno.ENOENT, errno.ESTALE)
        assert run(mount.store.parent / "other", "umount", str(mount.path)).returncode == 0
        assert mount.wait() == 0


def test_a_thousand_files_are_open_at_once(mount_store: Mounter) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, limits[1]), limits[1]))
    try:
        with mount_store() as mount:
            blobs = mount.path / "image" / "blobs" / "sha256"
            blobs.mkdir(parents=True)
            files = [
                os.open((mount.path if n % 2 else blobs) / f"f{n}", os.O_CREAT | os.O_RDWR)
                for n in range(1000)
            ]
            for number, file in enumerate(files):
                assert os.write(file, b"%d" % number) > 0
            for number, file in enumerate(files):
                assert os.pread(file, 10, 0) == b"%d" % number
                os.close(file)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_many_clients_work_at_once(mount_store: Mounter) -> None:
    def work(number: int) -> bool:
        layout = mount.path / f"layout-{number}" / "blobs" / "sha256"
        layout.mkdir(parents=True)
        for round_ in range(4):
            content = b"%d" % (round_ if number % 2 else round_ * 1000 + number)
            name = name_of(content)
            (layout / "temporary").write_bytes(content)
            (layout / "temporary").rename(layout / name)
            assert (layout / name).read_bytes() == content
        return True

    with mount_store() as mount, ThreadPoolExecutor(64) as clients:
        assert all(clients.map(work, range(64)))
        assert mount.warnings == []


def test_signals_that_come_again_change_nothing(mount_store: Mounter) -> None:
    with mount_store() as mount:
        for _ in range(20):
            for number in (signal.SIGINT, signal.SIGTERM):
                if mount.is_alive:
                    os.kill(mount.pid, number)
        assert mount.wait() == 0
        assert mount.path not in mount_points()
        assert mount.log.matching("Traceback") == []
