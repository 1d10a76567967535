"""A blob that rots and is taken away or replaced while a mount serves it."""

import subprocess
import sys
from pathlib import Path

import pytest

from ocistow.oci.reference import Reference
from ocistow.store.store import Store
from ocistow.testing.minimal import minimal_image

from .conftest import Mounter

pytestmark = pytest.mark.fuse

A = minimal_image("a")
LAYER = next(iter(A.blobs))
NAMES = [Reference.parse("example.com/app:1"), Reference.parse("example.com/app:2")]


def verify(store: Path, *arguments: str) -> int:
    command = [sys.executable, "-m", "ocistow.cli", "--store", str(store), "verify", *arguments]
    return subprocess.run(command, stdout=subprocess.DEVNULL, check=False, timeout=60).returncode


@pytest.mark.parametrize("at_once", [True, False])
def test_a_mount_does_not_go_on_with_a_bad_blob(
    mount_store: Mounter, tmp_path: Path, at_once: bool
) -> None:
    with mount_store() as mount:
        for path in (mount.store, tmp_path / "spare"):
            with Store.create(path) as store:
                A.add_to(store.blobs)
                for name in NAMES:
                    store.put(name, A.root)
        pool = mount.store / "blobs" / "sha256" / LAYER.encoded
        with pool.open("r+b") as stream:
            stream.write(b"X")
        files = [mount.path / name.path / "blobs" / "sha256" / LAYER.encoded for name in NAMES]
        bad = files[0].read_bytes()
        assert bad == files[1].read_bytes() != A.blobs[LAYER]
        with files[0].open("rb"):  # the kernel keeps the inode, whatever its name is
            if not at_once:
                assert verify(mount.store) == 4
                for file in files:
                    with pytest.raises(FileNotFoundError):
                        file.read_bytes()
            assert verify(mount.store, "--repair", str(tmp_path / "spare")) == 4
            for file in files:
                assert file.read_bytes() == A.blobs[LAYER]
        for file in files:
            assert file.read_bytes() == A.blobs[LAYER]
        assert verify(mount.store) == 0
