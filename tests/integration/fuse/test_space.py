"""A store on a full disk, seen by who writes to it."""

import errno
import hashlib
import os
import random
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from ocistow.testing.images import GeneratedImage, image_layout
from ocistow.testing.invariants import violations
from ocistow.testing.mounts import Mount, mounted, wait_until

pytestmark = pytest.mark.fuse

MIB = 1 << 20


@pytest.fixture
def mount(small: Path, tmp_path: Path, image: GeneratedImage) -> Generator[Mount]:
    """A store there, with one image."""
    with mounted(small / "store", tmp_path / "mnt") as mount:
        shutil.copytree(image.path, mount.path / "image")
        yield mount
        for digest in (image.manifest, image.config, *image.layers):
            blob = mount.path / "image" / "blobs" / "sha256" / digest.encoded
            assert hashlib.sha256(blob.read_bytes()).hexdigest() == digest.encoded
    assert violations(mount.store, sparse=True) == []


def free(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def fill(path: Path, *, size: int = 64 * MIB) -> OSError:
    """Write random bytes until that is refused, close, and return the first error."""
    dice, errors = random.Random(3), list[OSError]()
    file = os.open(path, os.O_CREAT | os.O_WRONLY)
    try:
        for _ in range(size // MIB):
            left = memoryview(dice.randbytes(MIB))
            while left:
                left = left[os.write(file, left) :]
    except OSError as error:
        errors.append(error)
    try:
        os.close(file)
    except OSError as error:
        errors.append(error)
    assert errors, "there was room"
    return errors[0]


@pytest.mark.parametrize(
    "name", ["blobs/sha256/" + "0" * 64, "blobs/sha256/temporary", "index.json", "ordinary"]
)
def test_a_full_disk_is_reported_and_recovered_from(mount: Mount, small: Path, name: str) -> None:
    (mount.path / "new" / "blobs" / "sha256").mkdir(parents=True)
    before = free(small)
    path = mount.path / "new" / name
    assert fill(path).errno == errno.ENOSPC
    if path.exists():
        path.unlink()
    mount.await_no_unnamed_files()
    wait_until(lambda: free(small) >= before - MIB, "the kernel has let go of it, too")
    assert free(mount.path) == free(small)
    content = random.Random(4).randbytes(4 * MIB)
    blob = mount.path / "new" / "blobs" / "sha256" / hashlib.sha256(content).hexdigest()
    blob.write_bytes(content)
    assert blob.read_bytes() == content


def test_a_write_that_failed_for_space_can_be_repeated(mount: Mount, small: Path) -> None:
    ballast = small / "ballast"
    content = random.Random(5).randbytes(3 * MIB)
    blob = mount.path / "blobs" / "sha256" / hashlib.sha256(content).hexdigest()
    blob.parent.mkdir(parents=True)
    ballast.write_bytes(bytes(free(small) - MIB))
    file = os.open(blob, os.O_CREAT | os.O_WRONLY)
    with pytest.raises(OSError, match="No space left"):
        write_the_rest(file, content)
    ballast.unlink()
    write_the_rest(file, content)
    os.close(file)
    assert blob.read_bytes() == content


def write_the_rest(file: int, content: bytes) -> None:
    """Write from the position of the file on, as a program does that was told of a short write."""
    while (start := os.lseek(file, 0, os.SEEK_CUR)) < len(content):
        os.write(file, content[start : start + 300_000])


def test_an_image_that_does_not_fit_leaves_the_others(
    mount: Mount, small: Path, tmp_path: Path
) -> None:
    ballast = small / "ballast"
    with ballast.open("wb") as file:
        file.write(bytes(free(small) - 64 * 1024))
    large = image_layout(tmp_path / "large", seed=8, layers=2, layer_size=MIB, compression="none")
    with pytest.raises((OSError, shutil.Error)):
        shutil.copytree(large.path, mount.path / "large")
    assert mount.is_alive
    subprocess.run(["rm", "-rf", mount.path / "large"], check=True)
    mount.await_no_unnamed_files()
    ballast.unlink()
    shutil.copytree(large.path, mount.path / "large")
