import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocistow.oci.digest import Digest
from ocistow.store.blobs import BlobStore
from ocistow.store.links import Links, Way
from ocistow.store.reading import open_directory
from ocistow.testing.disk import QuickDisk

CONTENT = b"content"
DIGEST = Digest.of(CONTENT)


class Elsewhere(QuickDisk):
    """A disk on which the pool is on another file system than all else."""

    def __init__(self, pool: Path, code: int = errno.EXDEV) -> None:
        self._pool = pool
        self._code = code

    def link(self, source: int, name: str, directory: int, new: str) -> bool:
        if os.path.samestat(os.fstat(source), (self._pool / "sha256").stat()):
            raise OSError(self._code, os.strerror(self._code))
        return super().link(source, name, directory, new)


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    (tmp_path / "blobs").mkdir()
    with BlobStore(tmp_path / "blobs", QuickDisk()) as blobs:
        blobs.add([CONTENT])
    return tmp_path / "blobs"


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "out").mkdir()
    directory = open_directory(tmp_path / "out")
    yield directory
    os.close(directory)


def test_a_copy_is_linked_where_the_pool_cannot_be(
    pool: Path, directory: int, tmp_path: Path
) -> None:
    copy = tmp_path / "copy" / DIGEST.encoded
    copy.parent.mkdir()
    copy.write_bytes(CONTENT)
    disk = Elsewhere(pool)
    with BlobStore(pool, disk) as blobs:
        links = Links(blobs)
        assert not links.make(Way.HARDLINK, DIGEST, directory, disk)
        links.copied(DIGEST, copy)
        for before in (None, b"other", CONTENT):
            if before is not None:
                (tmp_path / "out" / DIGEST.encoded).unlink()
                (tmp_path / "out" / DIGEST.encoded).write_bytes(before)
            assert links.make(Way.HARDLINK, DIGEST, directory, disk)
            assert (tmp_path / "out" / DIGEST.encoded).samefile(copy)
        assert links.make(Way.HARDLINK, DIGEST, directory, disk)  # it is that already
    assert os.listdir(tmp_path / "out") == [DIGEST.encoded]


@pytest.mark.parametrize("became", ["another file", "a link", "nothing"])
def test_what_is_no_longer_the_copy_is_not_linked(
    pool: Path, directory: int, tmp_path: Path, became: str
) -> None:
    copy = tmp_path / "copy" / DIGEST.encoded
    copy.parent.mkdir()
    copy.write_bytes(CONTENT)
    disk = Elsewhere(pool)
    with BlobStore(pool, disk) as blobs:
        links = Links(blobs)
        links.copied(DIGEST, copy)
        copy.rename(tmp_path / "aside")
        if became == "another file":
            copy.write_bytes(b"another")
        elif became == "a link":
            copy.symlink_to(tmp_path / "aside")
        assert not links.make(Way.HARDLINK, DIGEST, directory, disk)
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.EXDEV, "it lies on another mount than the store"),
        (errno.EPERM, "the file system has no hard links"),
        (errno.EOPNOTSUPP, "the file system has no hard links"),
        (errno.ENOSYS, "the file system has no hard links"),
    ],
)
def test_obstacles_are_named(pool: Path, directory: int, code: int, words: str) -> None:
    disk = Elsewhere(pool, code)
    with BlobStore(pool, disk) as blobs:
        links = Links(blobs, (Way.HARDLINK,))
        assert not links.make(Way.HARDLINK, DIGEST, directory, disk)
        assert links.obstacles == {Way.HARDLINK: words}
        assert str(links.refusal()).endswith(f"no hard link can be made: {words}")


def test_a_full_disk_is_no_obstacle(pool: Path, directory: int) -> None:
    disk = Elsewhere(pool, errno.ENOSPC)
    with BlobStore(pool, disk) as blobs, pytest.raises(OSError, match="No space left"):
        Links(blobs).make(Way.HARDLINK, DIGEST, directory, disk)
