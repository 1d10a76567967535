"""A containerd whose root is on a mount: content, database, snapshots and containers."""

import os
import subprocess
from pathlib import Path

import pytest

from ocistow.testing.images import busybox_image
from ocistow.testing.invariants import violations
from ocistow.testing.mounts import mounted

from .conftest import Containerd, serving

pytestmark = [pytest.mark.containerd, pytest.mark.fuse]

CONTENT = Path("io.containerd.content.v1.content/blobs/sha256")


def test_all_of_containerd_is_on_a_mount(tmp_path: Path) -> None:
    image = busybox_image(tmp_path / "image", cmd=("/bin/echo", "hello"))
    archive, store = tmp_path / "image.tar", tmp_path / "store"
    subprocess.run(["tar", "-C", image.path, "-cf", archive, "."], check=True)
    with mounted(store, tmp_path / "mnt") as mount:
        for name in ("first", "second"):  # of which the other finds all content in the pool
            with serving(tmp_path / name, mount.path / name) as address:
                containerd = Containerd(address, "mounted")
                containerd.ctr("images", "import", "--no-unpack", str(archive))
                how = ("--rm", "--net-host", "--snapshotter", "native", *containerd.images())
                assert containerd.ctr("run", *how, "one") == "hello"
                assert str(image.manifest) in containerd.content()
        for digest in (image.manifest, image.config, *image.layers):
            blob = mount.layouts / "first" / CONTENT / digest.encoded
            assert blob.samefile(store / "blobs" / "sha256" / digest.encoded)
        assert os.listdir(mount.layouts / "second" / CONTENT) == []
        assert mount.warnings == []
    assert violations(store) == []
