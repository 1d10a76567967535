"""A disk that is really full, and a file that really has all the links it can have."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocistow.oci.digest import Digest
from ocistow.oci.reference import Reference
from ocistow.store.reading import open_directory
from ocistow.store.store import Store
from ocistow.testing.filesystems import Unavailable, mounted
from ocistow.testing.invariants import images, strays, violations
from ocistow.testing.minimal import minimal_image

NAME = Reference.parse("a.io/b:c")
SIZES = {"tmpfs": 2 << 20, "ext4": 8 << 20}  # bytes

pytestmark = pytest.mark.slow
KINDS = pytest.mark.parametrize("small", SIZES, indirect=True)


@pytest.fixture
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A small file system, an ext4 unless another kind is asked for."""
    kind = str(getattr(request, "param", "ext4"))
    try:
        with mounted(kind, tmp_path / kind, size=SIZES[kind]) as path:
            yield path
    except Unavailable as reason:
        pytest.skip(str(reason))


def free(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_bfree * status.f_bsize


@KINDS
def test_a_full_disk_loses_nothing(small: Path) -> None:
    image = minimal_image("a")
    large = os.urandom(16 << 20)
    with Store.create(small / "store") as store:
        image.add_to(store.blobs)
        store.put(NAME, image.root)
        before = free(small)
        for _ in range(3):
            with pytest.raises(OSError, match="No space left") as caught:
                store.blobs.add([large[at : at + 65536] for at in range(0, len(large), 65536)])
            assert caught.value.errno == errno.ENOSPC
        assert abs(before - free(small)) <= 65536  # some of ext4's own
        assert violations(store.path) == []
        assert strays(store.path) == []
        assert images(store.path) == {"a.io/b/c": str(image.root.digest)}


@KINDS
def test_names_on_a_full_disk_are_whole_or_not_there(small: Path) -> None:
    """Images go in, and replace each other, until nothing goes any more."""
    put: list[str] = []

    def fill(store: Store) -> None:
        for number in range(10_000):
            image = minimal_image(str(number), [str(number), "x" * 5000 + str(number)])
            image.add_to(store.blobs)
            store.put(NAME, image.root)
            store.put(Reference.parse(f"a.io/b:{number}"), image.root)
            put.append(str(image.root.digest))

    with Store.create(small / "store") as store:
        with pytest.raises(OSError, match="No space left"):
            fill(store)
        assert violations(store.path) == []
        assert strays(store.path) == []
        assert set(put) <= set(images(store.path).values())
        for name in list(store.names()):
            store.layout(name).remove()
        assert [path for path in store.layouts.rglob("*") if path.name == "index.json"] == []


def test_a_file_with_65000_links_gets_a_successor(small: Path) -> None:
    with Store.create(small / "store") as store:
        digest = store.blobs.add([b"popular"])
        links = store.path / "links"
        links.mkdir()
        directory = open_directory(links)
        blob = store.path / "blobs" / "sha256" / digest.encoded
        for number in range(os.pathconf(links, "PC_LINK_MAX") - 1):
            os.link(blob, str(number), dst_dir_fd=directory)
        with pytest.raises(OSError, match="Too many links") as caught:
            os.link(blob, "one more", dst_dir_fd=directory)
        assert caught.value.errno == errno.EMLINK
        full = blob.stat()
        for name in ("first", "second"):
            store.blobs.link(digest, directory, name)
        os.close(directory)
        assert (links / "first").stat().st_ino == (links / "second").stat().st_ino
        assert blob.stat().st_ino == (links / "first").stat().st_ino != full.st_ino
        assert blob.stat().st_nlink == 3
        assert blob.read_bytes() == b"popular"
        assert Digest.of(b"popular") == digest
        assert strays(store.path) == []
