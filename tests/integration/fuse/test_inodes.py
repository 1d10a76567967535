"""Inode numbers: a disk uses them again at once, the kernel remembers them for longer."""

import hashlib
import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.fuse


def commit(layout: Path, content: bytes) -> Path:
    """Write a blob as skopeo does: a file in the image's root, renamed."""
    temporary = layout / "oci-put-blob"
    temporary.write_bytes(content)
    blob = layout / "blobs" / "sha256" / hashlib.sha256(content).hexdigest()
    os.rename(temporary, blob)
    return blob


def test_a_number_that_is_used_again_does_not_mix_up_two_blobs(here: Path) -> None:
    one, other = here / "one", here / "other"
    for layout in (one, other):
        (layout / "blobs" / "sha256").mkdir(parents=True)
    contents = [b"content %d" % number * 100 for number in range(50)]
    for content in contents:
        commit(one, content)
    # The pool has these, so each temporary file goes, and its number to the next one.
    for number, content in enumerate(contents):
        blob = commit(other, content)
        commit(other, b"new %d" % number * 100)
        assert blob.read_bytes() == content


def test_an_ordinary_file_does_not_become_the_one_before_it(here: Path) -> None:
    for number in range(50):
        file = here / f"file{number}"
        file.write_bytes(b"%d" % number * 100)
        assert file.read_bytes() == b"%d" % number * 100
        file.unlink()


def test_a_directory_that_moves_stays_itself(here: Path) -> None:
    """Although its number on the disk was that of one which is gone and still open."""
    gone = list[int]()
    for number in range(20):
        (here / "gone").mkdir()
        gone.append(os.open(here / "gone", os.O_RDONLY))
        (here / "gone").rmdir()
        (here / "one").mkdir()
        held = os.open(here / "one", os.O_RDONLY)
        (here / "one").rename(here / "other")
        (here / "one").mkdir()
        assert set(os.listdir(here)) == {"one", "other"}
        assert os.path.samestat(os.stat(here / "other"), os.fstat(held))
        assert not (here / "one").samefile(here / "other")
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=held))
        assert (os.listdir(here / "one"), os.listdir(here / "other")) == ([], ["file"]), number
        (here / "other" / "file").unlink()
        (here / "other").rmdir()
        (here / "one").rmdir()
        os.close(held)
    for file in gone:
        os.close(file)


def test_a_link_that_moves_stays_itself(here: Path) -> None:
    for number in range(20):
        (here / "gone").symlink_to("gone")
        gone = os.open(here / "gone", os.O_PATH | os.O_NOFOLLOW)
        (here / "gone").unlink()
        (here / "one").symlink_to("first")
        held = os.open(here / "one", os.O_PATH | os.O_NOFOLLOW)
        (here / "one").rename(here / "other")
        (here / "one").symlink_to("second")
        assert set(os.listdir(here)) == {"one", "other"}
        links = os.readlink(here / "one"), os.readlink(here / "other"), os.readlink("", dir_fd=held)
        assert links == ("second", "first", "first"), number
        (here / "one").unlink()
        (here / "other").unlink()
        os.close(held)
        os.close(gone)


def test_a_file_has_one_number_by_all_its_names(here: Path) -> None:
    for number in range(20):
        (here / "gone").touch()
        gone = os.open(here / "gone", os.O_RDONLY)
        (here / "gone").unlink()
        (here / "one").touch()
        (here / "one").chmod(0o444 if number % 2 else 0o644)
        before = (here / "one").stat()
        (here / "other").hardlink_to(here / "one")
        assert os.path.samestat((here / "other").stat(), before), number
        assert os.path.samestat((here / "one").stat(), before), number
        assert len({entry.inode() for entry in os.scandir(here)}) == 1, number
        (here / "one").unlink()
        (here / "other").unlink()
        os.close(gone)
