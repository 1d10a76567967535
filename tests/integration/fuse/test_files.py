"""Ordinary files and directories on the mount: as on any other file system."""

import errno
import fcntl
import os
import random
import resource
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ocistow.testing.mounts import Mount

pytestmark = pytest.mark.fuse


def test_write_append_truncate_and_read(here: Path) -> None:
    file = here / "file"
    file.write_bytes(b"hello")
    with file.open("ab") as stream:
        stream.write(b" world")
    with file.open("ab") as one, file.open("ab") as other:
        for stream in (one, other):
            stream.write(b"!")
            stream.flush()
    assert file.read_bytes() == b"hello world!!"
    os.truncate(file, 5)
    assert file.read_bytes() == b"hello"
    os.truncate(file, 7)
    assert file.read_bytes() == b"hello\0\0"
    file.write_bytes(b"")
    assert file.stat().st_size == 0


def test_random_writes_give_what_memory_gives(here: Path) -> None:
    dice, model = random.Random(7), bytearray()
    with (here / "file").open("w+b", buffering=0) as file:
        for _ in range(200):
            offset, data = dice.randrange(200_000), dice.randbytes(dice.randrange(9000))
            os.pwrite(file.fileno(), data, offset)
            if data and len(model) < offset:
                model.extend(bytes(offset - len(model)))
            model[offset : offset + len(data)] = data
            if dice.random() < 0.1:
                length = dice.randrange(200_000)
                file.truncate(length)
                model[length:] = bytes(max(0, length - len(model)))
            assert os.fstat(file.fileno()).st_size == len(model)
    assert (here / "file").read_bytes() == model


def test_exclusive_creation_happens_once(here: Path) -> None:
    def create(_: int) -> bool:
        try:
            os.close(os.open(here / "file", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(create, range(8))) == 1


def test_an_unlinked_file_that_is_open_is_still_a_file(here: Path) -> None:
    with (here / "file").open("w+b", buffering=0) as file:
        file.write(b"content")
        (here / "file").unlink()
        assert not (here / "file").exists()
        assert os.fstat(file.fileno()).st_size == 7
        file.write(b" and more")
        assert os.pread(file.fileno(), 100, 0) == b"content and more"
        file.truncate(3)
        assert os.fstat(file.fileno()).st_size == 3
        os.fchmod(file.fileno(), 0o600)
        os.utime(file.fileno(), ns=(1, 2))
        assert os.fstat(file.fileno()).st_mtime_ns == 2
        os.fsync(file.fileno())


def test_rename_over_an_open_file_leaves_the_old_one_to_its_reader(here: Path) -> None:
    (here / "old").write_bytes(b"old")
    (here / "new").write_bytes(b"new!")
    with (here / "old").open("rb") as file:
        (here / "new").rename(here / "old")
        assert os.fstat(file.fileno()).st_size == 3
        assert file.read() == b"old"
    assert (here / "old").read_bytes() == b"new!"
    assert os.listdir(here) == ["old"]


def test_a_file_is_written_to_after_it_was_renamed(here: Path) -> None:
    with (here / "one").open("wb", buffering=0) as file:
        file.write(b"1")
        (here / "one").rename(here / "two")
        file.write(b"2")
        file.truncate(1)
        file.seek(1)
        file.write(b"3")
    assert (here / "two").read_bytes() == b"13"


def test_hard_links_are_one_file(here: Path) -> None:
    (here / "one").write_bytes(b"content")
    (here / "two").hardlink_to(here / "one")
    assert (here / "one").samefile(here / "two")
    assert (here / "two").stat().st_nlink == 2
    with (here / "two").open("ab") as file:
        file.write(b"!")
    assert (here / "one").read_bytes() == b"content!"
    (here / "one").unlink()
    assert (here / "two").read_bytes() == b"content!"
    with (here / "two").open("r+b") as file:
        file.truncate(1)
    assert (here / "two").stat().st_size == 1
    with pytest.raises(FileExistsError):
        (here / "two").hardlink_to(here / "two")


def test_symbolic_links(here: Path) -> None:
    (here / "file").write_bytes(b"content")
    (here / "link").symlink_to("file")
    (here / "dangling").symlink_to("/nowhere/at all")
    assert (here / "link").read_bytes() == b"content"
    assert os.readlink(here / "dangling") == "/nowhere/at all"
    assert not (here / "dangling").exists()
    assert stat.S_ISLNK((here / "dangling").lstat().st_mode)
    (here / "link").unlink()
    assert (here / "file").exists()
    with pytest.raises(PermissionError):
        (here / "index.json").symlink_to("file")


def test_modes_and_times_are_kept_and_owners_are_the_mounts(here: Path) -> None:
    file = here / "file"
    file.write_bytes(b"content")
    file.chmod(0o640)
    os.utime(file, ns=(1_000_000_001, 2_000_000_002))
    os.chown(file, 12345, 12345)
    status = file.stat()
    assert stat.S_IMODE(status.st_mode) == 0o640
    assert (status.st_atime_ns, status.st_mtime_ns) == (1_000_000_001, 2_000_000_002)
    assert (status.st_uid, status.st_gid) == (os.getuid(), os.getgid())
    subprocess.run(["touch", "-m", "-d", "@5", file], check=True)
    assert (file.stat().st_atime, file.stat().st_mtime) == (1.000000001, 5)
    subprocess.run(["touch", "-a", "-d", "@6", file], check=True)
    assert (file.stat().st_atime, file.stat().st_mtime) == (6, 5)
    file.touch()
    assert file.stat().st_mtime > 6
    os.utime(here, ns=(1, 2))
    here.chmod(0o700)
    assert stat.S_IMODE(here.stat().st_mode) == 0o755


@pytest.mark.parametrize("mode", [stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_only_files_directories_and_links_can_be_made(here: Path, mode: int) -> None:
    with pytest.raises(PermissionError):
        os.mknod(here / "node", mode | 0o600, os.makedev(1, 3))
    assert os.listdir(here) == []


def test_directories(here: Path) -> None:
    (here / "a" / "b" / "c").mkdir(parents=True)
    with pytest.raises(FileExistsError):
        (here / "a").mkdir()
    with pytest.raises(OSError, match="not empty"):
        (here / "a").rmdir()
    (here / "a" / "b" / "file").write_bytes(b"content")
    (here / "a").rename(here / "moved")
    assert (here / "moved" / "b" / "file").read_bytes() == b"content"
    (here / "moved" / "b").rename(here / "b")
    assert sorted(os.listdir(here)) == ["b", "moved"]
    with pytest.raises(NotADirectoryError):
        (here / "b" / "file").rmdir()
    with pytest.raises(IsADirectoryError):
        (here / "b").unlink()
    with pytest.raises(OSError, match="not empty"):
        (here / "moved").rename(here / "b")
    (here / "b" / "file").unlink()
    (here / "b" / "c").rmdir()
    (here / "moved").rename(here / "b")
    assert os.listdir(here) == ["b"]


def test_a_directory_lists_itself_its_parent_and_its_types(here: Path) -> None:
    (here / "directory").mkdir()
    (here / "file").touch()
    (here / "link").symlink_to("file")
    with os.scandir(here) as entries:
        kinds = {e.name: (e.is_dir(follow_symlinks=False), e.is_symlink()) for e in entries}
    assert kinds == {"directory": (True, False), "file": (False, False), "link": (False, True)}
    shown = subprocess.run(["ls", "-ai", here], capture_output=True, text=True, check=True).stdout
    inodes = {name: int(inode) for inode, name in map(str.split, shown.splitlines())}
    assert inodes["directory"] == (here / "directory").stat().st_ino
    assert inodes.keys() - {".", ".."} == {"directory", "file", "link"}


def test_five_thousand_names(here: Path) -> None:
    names = {f"name-{number:05}-{'x' * 40}" for number in range(5000)}
    for name in names:
        os.close(os.open(here / name, os.O_CREAT | os.O_WRONLY))
    assert set(os.listdir(here)) == names
    with os.scandir(here) as entries:
        assert sum(entry.stat().st_size == 0 for entry in entries) == 5000
    for name in names:
        (here / name).unlink()
    assert os.listdir(here) == []


def test_a_directory_that_changes_while_it_is_read(here: Path) -> None:
    kept = {f"kept-{number}" for number in range(600)}
    for name in kept:
        (here / name).touch()
    for number in range(600):
        (here / f"gone-{number}").touch()
    seen: list[str] = []
    with os.scandir(here) as entries:
        for position, entry in enumerate(entries):
            seen.append(entry.name)
            if position < 600:
                (here / f"gone-{position}").unlink()
                (here / f"new-{position}").touch()
    assert kept <= set(seen)
    assert len(seen) == len(set(seen))
    assert set(os.listdir(here)) == kept | {f"new-{number}" for number in range(600)}


def test_odd_names(here: Path, shared_mount: Mount) -> None:
    names = [
        b"n" * 255,
        "ü".encode() * 127,
        b"\xff\xfe not UTF-8",
        b"new\nline\ttab \\ and space",
        b"-rf",
        b"...",
    ]
    for name in names:
        path = bytes(here) + b"/" + name
        os.mkdir(path)
        with open(path + b"/" + name, "wb") as file:
            file.write(name)
    assert sorted(os.listdir(bytes(here))) == sorted(names)
    on_disk = bytes(shared_mount.layouts / here.relative_to(shared_mount.path))
    for name in names:
        with open(bytes(here) + b"/" + name + b"/" + name, "rb") as file:
            assert file.read() == name
        with open(on_disk + b"/" + name + b"/" + name, "rb") as file:
            assert file.read() == name
    with pytest.raises(OSError, match="name too long") as caught:
        (here / ("n" * 256)).touch()
    assert caught.value.errno == errno.ENAMETOOLONG


def test_refusals_below_odd_names_are_logged(here: Path, shared_mount: Mount) -> None:
    blobs = bytes(here) + b"/\xff\n/blobs/sha256"
    os.makedirs(blobs)
    before = len(shared_mount.warnings)
    with (
        pytest.raises(OSError, match="Input/output error"),
        open(blobs + b"/" + b"0" * 64, "wb") as file,
    ):
        file.write(b"x")
    shared_mount.log.wait_for("^WARNING", count=before + 1)
    [warning] = shared_mount.warnings[before:]
    assert "content has digest" in warning  # on the same line: a name cannot forge another


def test_flock_excludes_other_processes(here: Path) -> None:
    for path in (here / "file", here):
        if path == here / "file":
            path.touch()
        file = os.open(path, os.O_RDONLY)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        code = (
            "import fcntl, os, sys\n"
            "fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        )
        attempt = [sys.executable, "-c", code, str(path)]
        assert b"BlockingIOError" in subprocess.run(attempt, capture_output=True).stderr
        os.close(file)
        assert subprocess.run(attempt, capture_output=True).returncode == 0


def test_posix_locks_exclude_other_processes(here: Path) -> None:
    with (here / "file").open("wb") as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        code = (
            "import fcntl, sys\n"
            "fcntl.lockf(open(sys.argv[1], 'r+b'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        )
        attempt = [sys.executable, "-c", code, str(here / "file")]
        assert b"BlockingIOError" in subprocess.run(attempt, capture_output=True).stderr


def test_statfs_is_the_stores(here: Path, shared_mount: Mount) -> None:
    shown, below = os.statvfs(here), os.statvfs(shared_mount.store)
    assert (shown.f_bsize, shown.f_blocks, shown.f_files) == (
        below.f_bsize,
        below.f_blocks,
        below.f_files,
    )
    assert shown.f_namemax == 255


def test_syncs(here: Path) -> None:
    with (here / "file").open("wb") as file:
        file.write(b"content")
        file.flush()
        os.fsync(file.fileno())
        os.fdatasync(file.fileno())
    directory = os.open(here, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
    os.sync()


def test_there_are_no_extended_attributes(here: Path) -> None:
    (here / "file").touch()
    with pytest.raises(OSError, match="not supported") as caught:
        os.getxattr(here / "file", "user.name")
    assert caught.value.errno == errno.EOPNOTSUPP
    with pytest.raises(OSError, match="not supported"):
        os.listxattr(here / "file")


def test_a_thousand_open_files(here: Path, shared_mount: Mount) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 3000:
        pytest.skip(f"only {hard} open files are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 3000), hard))
    blobs = here / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    files: list[int] = []
    try:
        for number in range(500):
            for path in (here / f"ordinary-{number}", blobs / f"temporary-{number}"):
                files.append(os.open(path, os.O_CREAT | os.O_RDWR))
                os.write(files[-1], b"%d" % number)
        assert all(os.pread(file, 10, 0).isdigit() for file in files)
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for number in range(500):
        (blobs / f"temporary-{number}").unlink()
    shared_mount.await_no_unnamed_files()


def test_the_stores_own_names_are_neither_seen_nor_made(here: Path, shared_mount: Mount) -> None:
    on_disk = shared_mount.layouts / here.relative_to(shared_mount.path)
    (here / "layout").mkdir()
    (on_disk / "layout" / ".ocistow-1").write_bytes(b"left by a crash")
    assert os.listdir(here / "layout") == []
    assert not (here / "layout" / ".ocistow-1").exists()
    (here / "layout").rmdir()
    with pytest.raises(PermissionError):
        (here / ".ocistow-1").write_bytes(b"mine")
    (here / "file").touch()
    with pytest.raises(PermissionError):
        (here / "file").rename(here / ".ocistow-2")
    with pytest.raises(PermissionError):
        (here / ".ocistow-2").hardlink_to(here / "file")
    with pytest.raises(PermissionError):
        (here / ".ocistow-2").mkdir()


def test_directories_do_not_change_their_role(here: Path) -> None:
    (here / "plain" / "sha256").mkdir(parents=True)
    (here / "plain" / "sha256" / ("0" * 64)).write_bytes(b"not that digest")
    (here / "blobs").mkdir()
    for old, new in [
        ("plain", "layout/blobs"),
        ("plain/sha256", "blobs/sha256"),
        ("plain/sha256", "blobs/other"),
        ("blobs", "plain/other"),
    ]:
        (here / new).parent.mkdir(exist_ok=True)
        with pytest.raises(OSError, match="cross-device"):
            (here / old).rename(here / new)
    (here / "blobs").rename(here / "layout" / "blobs")


def test_renaming_directories_as_a_volume_cache_does(here: Path) -> None:
    committed, staging = here / "committed", here / "staging"
    for directory in (committed, staging):
        directory.mkdir(0o777)
    (committed / "sha256:1.tar").write_bytes(b"layer 1")
    for generation in range(3):
        for name in os.listdir(committed):
            (staging / name).hardlink_to(committed / name)
        (staging / f"new-{generation}.tar").write_bytes(b"new layer")
        (staging / "io.buildpacks.lifecycle.cache.metadata").unlink(missing_ok=True)
        (staging / "io.buildpacks.lifecycle.cache.metadata").write_bytes(b"%d" % generation)
        committed.rename(here / "committed-backup")
        staging.rename(committed)
        subprocess.run(["rm", "-r", here / "committed-backup"], check=True)
        staging.mkdir(0o777)
    assert sorted(os.listdir(committed)) == [
        "io.buildpacks.lifecycle.cache.metadata",
        "new-0.tar",
        "new-1.tar",
        "new-2.tar",
        "sha256:1.tar",
    ]
    assert (committed / "sha256:1.tar").read_bytes() == b"layer 1"
    metadata = committed / "io.buildpacks.lifecycle.cache.metadata"
    assert metadata.read_bytes() == b"2"


def test_a_repository_may_be_called_blobs(here: Path) -> None:
    layout = here / "blobs" / "sha256" / ("0" * 64)
    layout.mkdir(parents=True)
    (layout / "file").write_bytes(b"content")
    assert (layout / "file").read_bytes() == b"content"


def test_a_file_is_there_to_be_opened_however_often_it_is_replaced(here: Path) -> None:
    file, is_over = here / "file", threading.Event()
    file.write_bytes(b"content")

    def replace(new: Path) -> None:
        while not is_over.is_set():
            new.write_bytes(b"content")
            new.rename(file)

    with ThreadPoolExecutor(2) as others:
        replaced = [others.submit(replace, here / name) for name in ("one", "two")]
        try:
            for _ in range(100):
                for flags in (os.O_RDONLY, os.O_RDWR):
                    os.close(os.open(file, flags))
        finally:
            is_over.set()
        for done in replaced:
            done.result()
