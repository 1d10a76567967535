"""System calls that most programs never make, and some hard uses of those they all make.

OCISTOW_NAMES=100000 lists a directory as large as that.
"""

import ctypes
import errno
import fcntl
import hashlib
import mmap
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ocistow.testing.images import GeneratedImage
from ocistow.testing.mounts import Mount

pytestmark = pytest.mark.fuse

FICLONE = 0x40049409
SIZE = 300_000
NAMES = int(os.environ.get("OCISTOW_NAMES", "10000"))
IN_CREATE, IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO, IN_DELETE = 0x100, 0x8, 0x40, 0x80, 0x200


@pytest.fixture
def blobs(here: Path) -> Path:
    path = here / "layout" / "blobs" / "sha256"
    path.mkdir(parents=True)
    return path


def by_sendfile(source: int, target: int) -> None:
    offset = 0
    while count := os.sendfile(target, source, offset, SIZE):
        offset += count


def by_splice(source: int, target: int) -> None:
    reading, writing = os.pipe()
    while count := os.splice(source, writing, 65536):
        while count:
            count -= os.splice(reading, target, count)
    os.close(reading)
    os.close(writing)


def by_copy_file_range(source: int, target: int) -> None:
    while os.copy_file_range(source, target, SIZE):
        pass


def by_mapping(source: int, target: int) -> None:
    with mmap.mmap(source, 0, mmap.MAP_PRIVATE, mmap.PROT_READ) as pages:
        os.write(target, pages[:])


def by_direct_io(source: int, target: int) -> None:
    for file in (source, target):
        fcntl.fcntl(file, fcntl.F_SETFL, fcntl.fcntl(file, fcntl.F_GETFL) | os.O_DIRECT)
    with mmap.mmap(-1, 1 << 20) as pages:  # aligned, as it must be elsewhere
        while count := os.readv(source, [pages]):
            os.write(target, pages[:count])


WAYS = [by_sendfile, by_splice, by_copy_file_range, by_mapping, by_direct_io]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__[3:])
def test_a_blob_goes_through_the_kernel(
    blobs: Path, way: Callable[[int, int], None], shared_mount: Mount
) -> None:
    """From an ordinary file to one that becomes a blob, and from the blob to another file."""
    content = os.urandom(SIZE)
    digest = hashlib.sha256(content).hexdigest()
    (blobs.parent.parent / "source").write_bytes(content)
    for source, target in [("../../source", digest), (digest, "../../copy")]:
        reading = os.open(blobs / source, os.O_RDONLY)
        writing = os.open(blobs / target, os.O_WRONLY | os.O_CREAT, 0o644)
        way(reading, writing)
        os.close(reading)
        os.close(writing)
    assert (shared_mount.store / "blobs" / "sha256" / digest).read_bytes() == content
    assert (blobs.parent.parent / "copy").read_bytes() == content


def test_extents_are_not_shared_on_request(here: Path) -> None:
    """FICLONE: cp(1) then copies, unless it is told --reflink=always."""
    (here / "one").write_bytes(b"content")
    with (here / "one").open("rb") as one, (here / "other").open("wb") as other:
        with pytest.raises(OSError, match="not supported") as caught:
            fcntl.ioctl(other, FICLONE, one.fileno())
        assert caught.value.errno == errno.EOPNOTSUPP
    subprocess.run(["cp", "--reflink=auto", here / "one", here / "third"], check=True)
    assert (here / "third").read_bytes() == b"content"


def test_two_processes_map_one_file(here: Path) -> None:
    (here / "file").write_bytes(bytes(10_000))
    code = (
        "import mmap, sys\n"
        "with open(sys.argv[1], 'r+b') as f, mmap.mmap(f.fileno(), 0) as m:\n"
        "    assert m[:5] == b'first'\n"
        "    m[9_000:9_006] = b'second'\n"
    )
    with (here / "file").open("r+b") as file, mmap.mmap(file.fileno(), 0) as pages:
        pages[:5] = b"first"
        subprocess.run([sys.executable, "-c", code, here / "file"], check=True)
        assert pages[9_000:9_006] == b"second"
        pages.flush()
        assert os.pread(file.fileno(), 6, 9_000) == b"second"
    assert (here / "file").read_bytes()[:5] == b"first"


def test_a_program_runs_from_the_mount_and_cannot_be_written_meanwhile(here: Path) -> None:
    program = here / "program"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
    with subprocess.Popen([program, "60"]) as running:
        with pytest.raises(OSError, match="busy") as caught:
            program.open("ab").close()
        assert caught.value.errno == errno.ETXTBSY
        running.kill()
    program.chmod(0o644)
    with pytest.raises(PermissionError):
        subprocess.run([program, "0"])
    script = here / "script"
    script.write_text("#!/bin/sh\necho $0\n")
    script.chmod(0o755)
    done = subprocess.run(["./script"], cwd=here, capture_output=True, check=True)
    assert done.stdout == b"./script\n"


def test_clients_are_told_of_each_others_changes(here: Path) -> None:
    """inotify(7): what goes through this mount."""
    libc = ctypes.CDLL(None, use_errno=True)
    events = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    mask = IN_CREATE | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE
    assert libc.inotify_add_watch(events, os.fsencode(here), mask) >= 0
    subprocess.run(["sh", "-c", "echo x > a; mv a b; rm b"], cwd=here, check=True)
    data, seen = os.read(events, 4096), list[tuple[int, bytes]]()
    os.close(events)
    while data:
        _, kind, _, length = struct.unpack_from("iIII", data)
        seen.append((kind, data[16 : 16 + length].rstrip(b"\0")))
        data = data[16 + length :]
    assert seen == [
        (IN_CREATE, b"a"),
        (IN_CLOSE_WRITE, b"a"),
        (IN_MOVED_FROM, b"a"),
        (IN_MOVED_TO, b"b"),
        (IN_DELETE, b"b"),
    ]


def test_paths_may_be_as_long_as_a_call_takes(here: Path, shared_mount: Mount) -> None:
    parts, directory = ["d" * 255] * 15, os.open(here, os.O_RDONLY | os.O_DIRECTORY)
    for part in parts:
        os.mkdir(part, dir_fd=directory)
        below = os.open(part, os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory)
        os.close(directory)
        directory = below
    with pytest.raises(OSError, match="too long") as caught:
        os.mkdir("d" * 255, dir_fd=directory)  # PATH_MAX on the disk below
    assert caught.value.errno == errno.ENAMETOOLONG
    os.close(directory)
    assert (shared_mount.layouts / here.name / "/".join(parts[:10])).is_dir()
    shutil.rmtree(here / ("d" * 255))


def test_a_thousand_levels(here: Path, shared_mount: Mount) -> None:
    """Made and removed below, where that takes less: each directory is asked for each time."""
    below, deep = shared_mount.layouts / here.name, "/".join("d" * 1000)
    subprocess.run(["mkdir", "-p", below / "top" / deep], check=True)
    (here / "top" / deep / "file").write_bytes(b"content")
    (here / "top").rename(here / "moved")
    (here / "moved" / deep / "file").rename(here / "moved" / deep / "other")
    assert (below / "moved" / deep / "other").read_bytes() == b"content"
    assert os.listdir(here / "moved" / deep) == ["other"]
    subprocess.run(["rm", "-r", below / "moved"], check=True)
    assert os.listdir(here) == []


def test_above_the_root_is_where_it_is_mounted(shared_mount: Mount) -> None:
    assert os.stat(shared_mount.path / "..").st_ino == os.stat(shared_mount.path.parent).st_ino
    assert os.path.samefile(shared_mount.path / "." / ".", shared_mount.path)
    root = os.open(shared_mount.path, os.O_RDONLY | os.O_DIRECTORY)
    assert os.path.samestat(os.stat("..", dir_fd=root), os.stat(shared_mount.path.parent))
    os.close(root)


def test_a_position_in_a_directory_can_be_returned_to(here: Path) -> None:
    for number in range(300):
        (here / f"{number:03}").touch()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
    libc.telldir.restype = ctypes.c_long
    stream = ctypes.c_void_p(libc.opendir(os.fsencode(here)))

    def names(count: int) -> list[bytes]:
        entries = (libc.readdir(stream) for _ in range(count))
        return [ctypes.string_at(entry + 19) for entry in entries if entry]  # d_name

    first, position = names(100), libc.telldir(stream)
    second = names(100)
    libc.seekdir(stream, ctypes.c_long(position))
    assert names(100) == second
    (here / "later").touch()
    libc.rewinddir(stream)
    assert names(100) == first
    assert b"later" in names(1000)
    libc.closedir(stream)


def test_very_many_names(here: Path, shared_mount: Mount) -> None:
    on_disk = os.open(shared_mount.layouts / here.name, os.O_RDONLY)
    names = {f"name-{number}" for number in range(NAMES)}
    for name in names:
        os.symlink("x", name, dir_fd=on_disk)
    seen = os.listdir(here)
    assert len(seen) == len(names)
    assert set(seen) == names
    for name in names:
        os.unlink(name, dir_fd=on_disk)
    os.close(on_disk)


def test_what_is_appended_comes_after_what_was(here: Path, image: GeneratedImage) -> None:
    """Also when somebody looks meanwhile, to whom the index has the size it was committed with."""
    shutil.copytree(image.path, here / "layout")
    index = here / "layout" / "index.json"
    before = index.read_bytes()
    with index.open("ab", buffering=0) as file:
        for piece in (b"\n", b"  ", b"\t"):
            file.write(piece)
            assert index.stat().st_size == len(before)
    assert index.read_bytes() == before + b"\n  \t"


def test_locks_of_open_files_exclude_each_other(here: Path) -> None:
    (here / "file").touch()
    one, other = (os.open(here / "file", os.O_RDWR) for _ in range(2))
    whole = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    fcntl.fcntl(one, fcntl.F_OFD_SETLK, whole)
    with pytest.raises(BlockingIOError):
        fcntl.fcntl(other, fcntl.F_OFD_SETLK, whole)
    os.close(one)
    fcntl.fcntl(other, fcntl.F_OFD_SETLK, whole)
    os.close(other)


@pytest.mark.parametrize("name", ["temporary", hashlib.sha256(b"content").hexdigest()])
def test_what_is_being_written_is_not_mapped_shared(blobs: Path, name: str, engine: str) -> None:
    """It is not in the page cache, where somebody else's content of that name may be.

    But for what the kernel writes by itself, of which it has no pages of its own.
    """
    with (blobs / name).open("w+b", buffering=0) as file:
        file.write(b"content")
        with mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ) as pages:
            assert pages[:] == b"content"
        if engine != "kernel" or name != "temporary":
            with pytest.raises(OSError, match="No such device") as caught:
                mmap.mmap(file.fileno(), 0)
            assert caught.value.errno == errno.ENODEV
    (blobs / name).unlink()
