import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ocistow.store.disk import FICLONE
from ocistow.testing.filesystems import KINDS, full, mounted, read_only

FUSE = pytest.mark.fuse
EVERY = [pytest.param(kind, marks=FUSE if KINDS[kind].in_user_space else ()) for kind in KINDS]

FileSystem = Callable[[str], Path]


def mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


def clones(path: Path) -> bool:
    (path / "a").write_bytes(b"a" * 8192)
    with (path / "a").open("rb") as source, (path / "b").open("wb") as file:
        try:
            fcntl.ioctl(file, FICLONE, source.fileno())
        except OSError:
            return False
    return (path / "b").read_bytes() == b"a" * 8192


def links(path: Path) -> bool:
    (path / "one").touch()
    try:
        (path / "two").hardlink_to(path / "one")
    except OSError:
        return False
    return True


@FUSE
def test_kinds_differ_in_what_they_can(file_system: FileSystem) -> None:
    assert {kind: (links(path := file_system(kind)), clones(path)) for kind in KINDS} == {
        "ext4": (True, False),
        "xfs": (True, True),
        "btrfs": (True, True),
        "exfat": (False, False),
        "tmpfs": (True, False),
    }


@pytest.mark.parametrize("kind", EVERY)
def test_nothing_is_left_after_a_failure(kind: str, file_system: FileSystem) -> None:
    path = file_system(kind).with_name("parent") / "here"

    def fail() -> None:
        with mounted(kind, path):
            assert str(path) in mounts()
            (path / "file").write_text("content")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert str(path) not in mounts()
    assert list(path.parent.iterdir()) == []
    if KINDS[kind].in_user_space:
        return  # its process lets go of the device a moment later
    devices = Path("/sys/block").glob("loop*/loop/backing_file")
    assert not [device for device in devices if str(path) in device.read_text()]


def test_a_file_system_that_is_in_use_goes_from_its_path(
    tmp_path: Path, file_system: FileSystem
) -> None:
    file_system("ext4")  # or skip
    with mounted("ext4", tmp_path / "busy"):
        file = (tmp_path / "busy" / "file").open("w")
    file.close()
    assert not (tmp_path / "busy").exists()


@pytest.mark.parametrize("kind", EVERY)
def test_nobody_writes_where_it_is_read_only(kind: str, file_system: FileSystem) -> None:
    path = file_system(kind)
    with read_only(path), pytest.raises(OSError, match="Read-only") as caught:
        (path / "file").touch()
    assert caught.value.errno == errno.EROFS
    (path / "file").touch()


@pytest.mark.parametrize("kind", EVERY)
def test_a_full_one_takes_no_more(kind: str, file_system: FileSystem) -> None:
    path = file_system(kind)
    with full(path):
        assert os.statvfs(path).f_bavail * os.statvfs(path).f_frsize < 1 << 20
        with pytest.raises(OSError, match="No space left") as caught:
            (path / "file").write_bytes(b"x" * (1 << 20))
        assert caught.value.errno == errno.ENOSPC
    (path / "file").write_bytes(b"x" * (1 << 20))
