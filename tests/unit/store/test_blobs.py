import errno
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from ocistow.oci.digest import Digest
from ocistow.oci.errors import InvalidContent, NotFound
from ocistow.store.blobs import BlobStore
from ocistow.store.disk import Disk
from ocistow.store.reading import READ_SIZE, digest_of_file, open_directory
from ocistow.testing.disk import FailingDisk, QuickDisk, WatchedDisk

CONTENT = b"content"
DIGEST = Digest.of(CONTENT)


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[BlobStore]:
    with BlobStore(made(tmp_path / "blobs")) as opened:
        yield opened


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    opened = open_directory(made(tmp_path / "layout"))
    yield opened
    os.close(opened)


def made(path: Path) -> Path:
    path.mkdir()
    return path


def inode(path: Path) -> int:
    return path.stat().st_ino


def test_a_blob_cannot_be_written_to(blobs: BlobStore) -> None:
    blobs.add([CONTENT])
    assert blobs.stat(DIGEST).st_mode & 0o777 == 0o444


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_everybody_may_read_a_blob_whatever_the_umask(blobs: BlobStore, umask: int) -> None:
    before = os.umask(umask)
    try:
        blobs.add([CONTENT])
    finally:
        os.umask(before)
    assert blobs.stat(DIGEST).st_mode & 0o777 == 0o444


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (len(CONTENT) - 1, "has more than the announced 6 bytes"),
        (len(CONTENT) + 1, "has 7 bytes, 8 were announced"),
        (0, "has more than the announced 0 bytes"),
    ],
)
def test_another_size_than_announced_is_refused(blobs: BlobStore, size: int, message: str) -> None:
    with pytest.raises(InvalidContent, match=f"a blob {message}"):
        blobs.add([CONTENT], size=size)
    with pytest.raises(InvalidContent, match=f"blob {DIGEST} {message}"):
        blobs.add([CONTENT], DIGEST, size)
    assert DIGEST not in blobs


def test_a_sender_that_never_ends_is_cut_off(blobs: BlobStore) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"more"

    with pytest.raises(InvalidContent, match="more than the announced 1000"):
        blobs.add(endless(), DIGEST, 1000)


def test_the_announced_size_is_accepted(blobs: BlobStore) -> None:
    assert blobs.add([CONTENT], DIGEST, len(CONTENT)) == DIGEST


def test_a_deleted_blob_is_not_found(blobs: BlobStore) -> None:
    blobs.add([CONTENT])
    blobs.delete(DIGEST)
    assert DIGEST not in blobs
    blobs.delete(DIGEST)
    blobs.delete(Digest.of(CONTENT, "sha512"))
    blobs.sync()
    assert os.listdir(blobs.path) == ["sha256"]


def test_what_another_process_adds_is_seen(blobs: BlobStore) -> None:
    """The first blob of an algorithm makes a directory."""
    with BlobStore(blobs.path) as other:
        other.add([CONTENT], DIGEST)
    assert DIGEST in blobs
    assert list(blobs) == [DIGEST]
    os.close(blobs.open(DIGEST))


def test_a_closed_pool_does_not_say_that_blobs_are_absent(blobs: BlobStore) -> None:
    blobs.add([CONTENT])
    blobs.close()
    blobs.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        blobs.stat(DIGEST)


def test_a_file_becomes_a_blob(blobs: BlobStore, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(CONTENT)
    for _ in range(2):
        with file.open("rb") as opened:
            blobs.adopt(opened.fileno(), DIGEST)
    assert blobs.stat(DIGEST).st_ino == inode(file)
    assert file.stat().st_mode & 0o777 == 0o444


def test_sync_waits_for_a_sync_under_way(tmp_path: Path) -> None:
    begun, finish, late = threading.Event(), threading.Event(), threading.Event()

    class SlowDisk(QuickDisk):
        def sync(self, file: int) -> None:
            if threading.current_thread() is first:
                begun.set()
                assert finish.wait(60)

    def second_sync() -> None:
        begun.wait(60)
        trying.set()
        blobs.sync()
        late.set()

    trying = threading.Event()
    with BlobStore(tmp_path, SlowDisk()) as blobs:
        first = threading.Thread(target=blobs.sync)
        second = threading.Thread(target=second_sync)
        blobs.add([CONTENT])
        first.start()
        second.start()
        assert trying.wait(60)
        assert not late.wait(0.05)
        finish.set()
        first.join()
        second.join()
        assert late.is_set()


def test_a_failed_sync_is_done_again(tmp_path: Path) -> None:
    class CountingDisk(FailingDisk):
        syncs = 0

        def about_to(self, call: str) -> None:
            self.syncs += call == "sync"
            super().about_to(call)

    disk = CountingDisk(2, errno.EIO, only="sync")  # after the root's and the file's
    with BlobStore(tmp_path, disk) as blobs:
        blobs.add([CONTENT])
        with pytest.raises(OSError, match="Input/output"):
            blobs.sync()
        blobs.sync()
        assert disk.syncs == 4
        blobs.sync()
        assert disk.syncs == 4


@pytest.mark.parametrize("is_early", [False, True])
def test_what_a_disk_has_lost_is_no_blob_though_a_second_sync_succeeds(
    tmp_path: Path, is_early: bool
) -> None:
    disk = FailingDisk(1, errno.ENOSPC, only="sync")  # after the root's
    with BlobStore(tmp_path, disk) as blobs, blobs.ingest() as ingest:
        ingest.write(CONTENT)
        with pytest.raises(OSError, match="No space"):
            ingest.sync() if is_early else ingest.commit()
        for again in (ingest.sync, ingest.commit):
            with pytest.raises(OSError, match="Input/output"):
                again()
        assert DIGEST not in blobs
        blobs.add([CONTENT])
        assert ingest.commit() == DIGEST  # which others have brought to the disk


def test_a_link_shares_the_pools_file(blobs: BlobStore, directory: int, tmp_path: Path) -> None:
    blobs.add([CONTENT])
    for _ in range(2):
        blobs.link(DIGEST, directory, "name")
    assert inode(tmp_path / "layout" / "name") == blobs.stat(DIGEST).st_ino


def test_what_is_absent_cannot_be_linked(blobs: BlobStore, directory: int) -> None:
    with pytest.raises(NotFound):
        blobs.link(DIGEST, directory, "name")
    blobs.add([b"other"])
    with pytest.raises(NotFound):
        blobs.link(DIGEST, directory, "name")


def test_a_link_replaces_another_file(blobs: BlobStore, directory: int, tmp_path: Path) -> None:
    blobs.add([CONTENT])
    (tmp_path / "layout" / "name").write_bytes(CONTENT)
    blobs.link(DIGEST, directory, "name")
    assert inode(tmp_path / "layout" / "name") == blobs.stat(DIGEST).st_ino
    assert os.listdir(blobs.path) == ["sha256"]


def test_a_link_replaces_a_symbolic_link_and_not_its_target(
    blobs: BlobStore, directory: int, tmp_path: Path
) -> None:
    blobs.add([CONTENT])
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "layout" / "name").symlink_to(tmp_path / "victim")
    blobs.link(DIGEST, directory, "name")
    assert (tmp_path / "layout" / "name").lstat().st_ino == blobs.stat(DIGEST).st_ino
    assert (tmp_path / "victim").read_bytes() == b"precious"


class LinklessDisk(QuickDisk):
    """A disk that refuses hard links, and that may know how to clone."""

    def __init__(self, code: int, *, clones: bool = False) -> None:
        self.code = code
        self.clones = clones
        self.cloned = 0

    def link(self, source: int, name: str, directory: int, new: str) -> bool:
        raise OSError(self.code, os.strerror(self.code))

    def clone(self, source: int, file: int) -> bool:
        if self.clones:
            self.cloned += 1
            os.pwrite(file, os.pread(source, 1 << 20, 0), 0)
        return self.clones


CANNOT_LINK = [errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP, errno.EMLINK]


@pytest.mark.parametrize("clones", [True, False], ids=["reflink", "copy"])
@pytest.mark.parametrize("code", CANNOT_LINK, ids=errno.errorcode.get)
def test_where_links_are_impossible_a_copy_is_made(
    tmp_path: Path, directory: int, code: int, clones: bool
) -> None:
    disk = LinklessDisk(code, clones=clones)
    name = tmp_path / "layout" / "name"
    with BlobStore(made(tmp_path / "blobs"), disk) as blobs:
        blobs.add([CONTENT])
        blobs.link(DIGEST, directory, "name")
        assert name.read_bytes() == CONTENT
        assert inode(name) != blobs.stat(DIGEST).st_ino
        assert (disk.cloned > 0) is clones
        first = inode(name)
        blobs.link(DIGEST, directory, "name")
        assert inode(name) == first  # not copied again
    assert os.listdir(tmp_path / "layout") == ["name"]


@pytest.mark.parametrize("planted", ["other content", "symbolic link", "fifo"])
def test_a_copy_replaces_what_is_not_the_blob(tmp_path: Path, directory: int, planted: str) -> None:
    name = tmp_path / "layout" / "name"
    if planted == "fifo":
        os.mkfifo(name)
    elif planted == "symbolic link":
        (tmp_path / "victim").write_bytes(CONTENT)
        name.symlink_to(tmp_path / "victim")
    else:
        name.write_bytes(b"other")
    with BlobStore(made(tmp_path / "blobs"), LinklessDisk(errno.EXDEV)) as blobs:
        blobs.add([CONTENT])
        blobs.link(DIGEST, directory, "name")
    assert not name.is_symlink()
    assert name.read_bytes() == CONTENT
    assert name.stat().st_mode & 0o777 == 0o444


def test_other_errors_of_a_link_are_passed_on(tmp_path: Path, directory: int) -> None:
    with BlobStore(made(tmp_path / "blobs"), LinklessDisk(errno.ENOSPC)) as blobs:
        blobs.add([CONTENT])
        with pytest.raises(OSError, match="No space left"):
            blobs.link(DIGEST, directory, "name")


def test_a_file_with_all_its_links_gets_a_successor(tmp_path: Path, directory: int) -> None:
    disk = WatchedDisk()
    disk.max_links = 3
    with BlobStore(made(tmp_path / "blobs"), disk) as blobs:
        blobs.add([CONTENT])
        for number in range(10):
            blobs.link(DIGEST, directory, str(number))
        assert list(blobs) == [DIGEST]
    inodes = [inode(file) for file in (tmp_path / "layout").iterdir()]
    assert len(inodes) == 10
    assert len(set(inodes)) == 5
    assert os.listdir(tmp_path / "blobs") == ["sha256"]


def test_a_name_that_comes_back_is_an_error(tmp_path: Path, directory: int) -> None:
    class Haunted(LinklessDisk):
        def name(self, file: int, directory: int, name: str) -> bool:
            return name != "name" and super().name(file, directory, name)

        def rename(self, source: int, name: str, directory: int, new: str) -> None:
            raise OSError(errno.EISDIR, "a directory")

    with BlobStore(made(tmp_path / "blobs"), Haunted(errno.EXDEV)) as blobs:
        blobs.add([CONTENT])
        with pytest.raises(OSError, match="a directory"):
            blobs.link(DIGEST, directory, "name")
    assert os.listdir(tmp_path / "layout") == []


@pytest.mark.parametrize("code", [errno.EXDEV, None], ids=["copy", "link"])
def test_what_has_the_name_of_a_spare_is_never_removed(
    tmp_path: Path, directory: int, code: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads of two containers have the same number, and clients of a mount choose any name."""
    drawn = "5" * 16

    def draw(size: int) -> bytes:
        return b"\x55" * size

    monkeypatch.setattr(os, "urandom", draw)
    there = f".ocistow-{threading.get_native_id()}"
    mine = f".ocistow-{drawn}"
    with BlobStore(made(tmp_path / "blobs"), LinklessDisk(code) if code else QuickDisk()) as blobs:
        blobs.add([CONTENT])
        for above in ("layout", "blobs"):
            (tmp_path / above / mine).write_bytes(b"precious")
            (tmp_path / above / there).write_bytes(b"precious")
        (tmp_path / "layout" / "name").write_bytes(b"other")
        (tmp_path / "blobs" / f".{DIGEST.encoded}.{threading.get_native_id()}").touch()
        if code:
            with pytest.raises(FileExistsError, match=mine):
                replace_by_copy(tmp_path, directory)
        else:
            with pytest.raises(FileExistsError, match=mine):
                blobs.link(DIGEST, directory, "name")
    assert (tmp_path / "layout" / "name").read_bytes() == b"other"
    for above in ("layout", "blobs"):
        assert (tmp_path / above / mine).read_bytes() == b"precious"
        assert (tmp_path / above / there).read_bytes() == b"precious"


def replace_by_copy(path: Path, directory: int) -> None:
    with (path / "blobs" / "sha256" / DIGEST.encoded).open("rb") as source:
        QuickDisk().copy(source.fileno(), directory, "name")


def test_spares_are_hidden_names_that_differ(tmp_path: Path, directory: int) -> None:
    class Watching(QuickDisk):
        spares: ClassVar[list[str]] = []

        def rename(self, source: int, name: str, directory: int, new: str) -> None:
            self.spares.append(name)
            super().rename(source, name, directory, new)

    with BlobStore(made(tmp_path / "blobs"), disk := Watching()) as blobs:
        blobs.add([CONTENT])
        for _ in range(2):
            (tmp_path / "layout" / "name").unlink(missing_ok=True)
            (tmp_path / "layout" / "name").write_bytes(b"other")
            blobs.link(DIGEST, directory, "name")
            with (tmp_path / "layout" / "name").open("rb") as source:
                disk.copy(source.fileno(), directory, "name")
    assert len(set(disk.spares)) == 4
    assert all(re.fullmatch(r"\.ocistow-[0-9a-f]{16}", spare) for spare in disk.spares)
    assert os.listdir(tmp_path / "blobs") == ["sha256"]
    assert os.listdir(tmp_path / "layout") == ["name"]


def test_a_link_that_another_process_makes_meanwhile_leaves_no_spare(
    tmp_path: Path, directory: int
) -> None:
    """rename(2) does nothing, and says so to nobody, when both names are of one file."""

    class Overtaken(QuickDisk):
        def rename(self, source: int, name: str, directory: int, new: str) -> None:
            os.unlink(new, dir_fd=directory)
            os.link(name, new, src_dir_fd=source, dst_dir_fd=directory)
            super().rename(source, name, directory, new)

    with BlobStore(made(tmp_path / "blobs"), Overtaken()) as blobs:
        blobs.add([CONTENT])
        (tmp_path / "layout" / "name").write_bytes(b"other")
        blobs.link(DIGEST, directory, "name")
        assert inode(tmp_path / "layout" / "name") == blobs.stat(DIGEST).st_ino
    assert os.listdir(tmp_path / "blobs") == ["sha256"]


def test_a_blob_that_shrank_is_noticed(blobs: BlobStore) -> None:
    with blobs.ingest() as ingest:
        ingest.write_at(10, CONTENT)
        os.ftruncate(ingest.file, 3)
        with pytest.raises(InvalidContent, match="ended at byte 3 of 17"):
            ingest.digest()


def test_an_ingest_may_be_closed_twice(blobs: BlobStore) -> None:
    ingest = blobs.ingest()
    ingest.close()
    ingest.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        ingest.write(CONTENT)


def test_another_algorithm_for_once_does_not_rename_the_blob(blobs: BlobStore) -> None:
    with blobs.ingest() as ingest:
        ingest.write(CONTENT)
        assert ingest.digest("blake3") == Digest.of(CONTENT, "blake3")
        assert ingest.commit() == DIGEST


def test_a_clone_that_is_impossible_changes_nothing(blobs: BlobStore, tmp_path: Path) -> None:
    with blobs.ingest() as ingest, (tmp_path / "source").open("w+b") as source:
        ingest.write(CONTENT)
        cloned = ingest.clone(source.fileno())
        assert ingest.size == (0 if cloned else len(CONTENT))


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EIO], ids=errno.errorcode.get)
def test_only_a_disk_that_cannot_clone_may_say_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int
) -> None:
    def ioctl(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.ioctl", ioctl)
    with (tmp_path / "file").open("w") as file:
        if code == errno.EIO:
            with pytest.raises(OSError, match="Input/output"):
                Disk().clone(file.fileno(), file.fileno())
        else:
            assert not Disk().clone(file.fileno(), file.fileno())


def test_a_disk_that_clones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def ioctl(*_: object) -> int:
        return 0

    monkeypatch.setattr("fcntl.ioctl", ioctl)
    with (tmp_path / "file").open("w") as file:
        assert Disk().clone(file.fileno(), file.fileno())


def test_a_directory_that_cannot_be_removed_is_an_error(tmp_path: Path, directory: int) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        Disk().rmdir(directory, ".")
    (tmp_path / "layout" / "file").touch()
    assert not Disk().rmdir(directory, "file")


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("size", [0, 1, READ_SIZE, READ_SIZE + 1])
def test_the_digest_of_a_file_is_that_of_its_content(
    tmp_path: Path, size: int, algorithm: str
) -> None:
    content = bytes(range(251)) * (size // 251 + 1)
    (tmp_path / "file").write_bytes(content[:size])
    with (tmp_path / "file").open("rb") as file:
        file.seek(size // 2)
        assert digest_of_file(file.fileno(), algorithm) == Digest.of(content[:size], algorithm)
        assert file.tell() == size // 2
