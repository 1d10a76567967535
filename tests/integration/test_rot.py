"""Bits that a disk loses below the page cache, as disks do."""

import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

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


class Extent(NamedTuple):
    physical: int
    logical: int
    length: int


def extents_of(file: Path) -> list[Extent]:
    """Return where the bytes of a file lie on its file system's device."""
    command = ["filefrag", "-b1", "-v", str(file)]
    environment = {**os.environ, "PATH": PATH}
    said = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    rows = re.findall(
        r"^ *\d+: *(\d+)\.\. *\d+: *(\d+)\.\. *\d+: *(\d+):", said.stdout, re.MULTILINE
    )
    return [Extent(int(physical), int(logical), int(length)) for logical, physical, length in rows]


def offset_on_disk(file: Path) -> int:
    """Return where the first byte of a file lies on its file system's device."""
    return extents_of(file)[0].physical


def use_up(file: Path) -> None:
    """Let a file have every free block of its file system, which is ext4."""
    device = os.stat(file.parent).st_dev
    block = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve()
    Path(f"/sys/fs/ext4/{block.name}/reserved_clusters").write_text("0")
    with file.open("wb") as stream:
        size = 0
        for step in (1 << 20, 1 << 10):
            with suppress(OSError):
                while True:
                    os.posix_fallocate(stream.fileno(), size, step)
                    size += step


def give_back(file: Path, size: int, *, last: bool) -> None:
    """Free ``size`` of a file's bytes, as near to the disk's start or end as it has them."""
    extents = [extent for extent in extents_of(file) if extent.length >= size]
    extent = max(extents) if last else min(extents)
    offset = extent.logical + (extent.length - size if last else 0)
    command = ["fallocate", "--punch-hole", f"--offset={offset}", f"--length={size}", str(file)]
    subprocess.run(command, check=True)
    os.sync()


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
            use_up(disk / "large")
            give_back(disk / "large", 256 << 10, last=True)
            for path in (disk / "store", tmp_path / "spare"):
                with Store.open(path) as store:
                    store.blobs.add([A.blobs[LAYER]])
                    for name in NAMES:
                        store.layout(name.path).link(LAYER)
            os.sync()
            use_up(disk / "rest")
            give_back(disk / "large", 4 << 20, last=False)
            pool = disk / "store" / "blobs" / "sha256"
            places = {digest: offset_on_disk(pool / digest.encoded) for digest in A.blobs}
            assert places[LAYER] == max(places.values())
            os.truncate(tmp_path / "disk.img", places[LAYER])
            forget(pool / LAYER.encoded)
            with pytest.raises(OSError, match="Input/output"):
                (pool / LAYER.encoded).read_bytes()
            dry = verify(disk / "store", "--dry-run")
            assert (dry.returncode, dry.stdout.count("unreadable-blob")) == (4, 1)
            assert (pool / LAYER.encoded).exists()
            done = verify(disk / "store", "--repair", str(tmp_path / "spare"))
            assert (done.returncode, done.stdout.count("unreadable-blob")) == (4, 1)
            assert f"repaired {LAYER} from {tmp_path / 'spare'}, for 30 images" in done.stdout
            assert len(list((disk / "store" / "quarantine" / "sha256").iterdir())) == 1
            assert violations(disk / "store") == []
            again = verify(disk / "store", "--cached")
            assert (again.returncode, again.stderr) == (0, "")
    except Unavailable as reason:
        pytest.skip(str(reason))
