"""Bits that a disk loses below the page cache, as disks do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ocistow.oci.reference import Reference
from ocistow.store.store import Store
from ocistow.testing.filesystems import PATH, Unavailable, mounted
from ocistow.testing.invariants import violations
from ocistow.testing.minimal import minimal_image

A = minimal_image("a", ["large" * 5000, "small"])
LAYER = next(iter(A.blobs))
NAMES = [Reference.parse(f"example.com/app:{number}") for number in range(30)]


def verify(store: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "ocistow.cli", "--store", str(store), "verify", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def offset_on_disk(file: Path) -> int:
    """Return where the first byte of a file lies on its file system's device."""
    command = ["filefrag", "-b1", "-v", str(file)]
    environment = {**os.environ, "PATH": PATH}
    said = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    first = next(line for line in said.stdout.splitlines() if line.strip().startswith("0:"))
    return int(first.split(":")[2].split("..")[0])


def use_up(disk: Path, *, but: int) -> None:
    """Let a large file have the disk but for some bytes, which lie at its end."""
    file = os.open(disk / "large", os.O_WRONLY | os.O_CREAT)
    free = os.statvfs(disk)
    os.posix_fallocate(file, 0, free.f_bavail * free.f_frsize - but)
    os.close(file)


def forget(path: Path) -> None:
    """Drop what memory has of a file."""
    file = os.open(path, os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)


def test_what_the_disk_lost_is_found_although_memory_has_it(tmp_path: Path) -> None:
    try:
        with mounted("ext4", tmp_path / "disk") as disk:
            for path in (disk / "store", tmp_path / "spare"):
                with Store.create(path) as store:
                    A.add_to(store.blobs)
                    for name in NAMES:
                        store.put(name, A.root)
            file = disk / "store" / "blobs" / "sha256" / LAYER.encoded
            assert verify(disk / "store").returncode == 0
            assert file.read_bytes() == A.blobs[LAYER]
            device = os.open(tmp_path / "disk.img", os.O_WRONLY)
            try:
                os.pwrite(device, b"X", offset_on_disk(file) + 1234)
                os.fsync(device)
            finally:
                os.close(device)
            assert file.read_bytes() == A.blobs[LAYER]  # from memory
            assert verify(disk / "store", "--cached").returncode == 0
            done = verify(disk / "store", "--repair", str(tmp_path / "spare"))
            assert done.returncode == 4
            assert done.stdout.count("bad-blob") == 1
            assert f"repaired {LAYER} from {tmp_path / 'spare'}, for 30 images" in done.stdout
            assert violations(disk / "store") == []
            again = verify(disk / "store")
            assert (again.returncode, again.stderr) == (0, "")
    except Unavailable as reason:
        pytest.skip(str(reason))


def test_what_the_disk_cannot_read_is_taken_away_and_comes_back(tmp_path: Path) -> None:
    """A disk that ends before its file system does: what lies behind its end is lost."""
    try:
        with mounted("ext4", tmp_path / "disk", size=256 << 20) as disk:
            for path in (disk / "store", tmp_path / "spare"):
                with Store.create(path) as store:
                    for content in list(A.blobs.values())[1:]:
                        store.blobs.add([content])
                    for name in NAMES:
                        store.put(name, A.root)
            os.sync()
            use_up(disk, but=4 << 20)
            for path in (disk / "store", tmp_path / "spare"):
                with Store.open(path) as store:
                    store.blobs.add([A.blobs[LAYER]])
                    for name in NAMES:
                        store.layout(name.path).link(LAYER)
            os.sync()
            pool = disk / "store" / "blobs" / "sha256"
            places = {digest: offset_on_disk(pool / digest.encoded) for digest in A.blobs}
            os.truncate(tmp_path / "disk.img", places[LAYER])
            lost = [digest for digest, place in places.items() if place >= places[LAYER]]
            for digest in lost:
                forget(pool / digest.encoded)
                with pytest.raises(OSError, match="Input/output"):
                    (pool / digest.encoded).read_bytes()
            dry = verify(disk / "store", "--dry-run")
            assert (dry.returncode, dry.stdout.count("unreadable-blob")) == (4, len(lost))
            assert (pool / LAYER.encoded).exists()
            done = verify(disk / "store", "--repair", str(tmp_path / "spare"))
            assert (done.returncode, done.stdout.count("unreadable-blob")) == (4, len(lost))
            assert done.stdout.count(f"from {tmp_path / 'spare'}, for 30 images") == len(lost)
            assert len(list((disk / "store" / "quarantine" / "sha256").iterdir())) == len(lost)
            assert violations(disk / "store") == []
            again = verify(disk / "store", "--cached")
            assert (again.returncode, again.stderr) == (0, "")
    except Unavailable as reason:
        pytest.skip(str(reason))
