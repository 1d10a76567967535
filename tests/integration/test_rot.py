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
