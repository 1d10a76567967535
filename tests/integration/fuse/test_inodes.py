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
