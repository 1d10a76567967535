"""Podman takes images from a mount, and leaves them there."""

import hashlib
import json
from pathlib import Path

import pytest

from ocistow.testing.images import busybox_image
from ocistow.testing.invariants import violations
from ocistow.testing.mounts import mounted

from .conftest import Podman

pytestmark = [pytest.mark.podman, pytest.mark.fuse]


def test_images_go_to_a_mount_and_come_back(
    tmp_path: Path, podman: Podman, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # podman calls an image as its directory, whose names it may refuse
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)  # where podman insists on a file
    image = busybox_image(tmp_path / "image")
    store = tmp_path / "store"
    with mounted(store, tmp_path / "mnt") as mount:
        podman.run("pull", "--quiet", f"oci:{image.path.name}")
        [name] = podman.digests()
        saved, pushed = Path("mnt/saved"), Path("mnt/pushed")
        podman.run("save", "--quiet", "--format", "oci-dir", "--output", str(saved), name)
        podman.run("push", "--quiet", name, f"oci:{pushed}:latest")
        for layout in (saved, pushed):
            for blob in (layout / "blobs" / "sha256").iterdir():
                assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
            [descriptor] = json.loads((layout / "index.json").read_bytes())["manifests"]
            podman.run("rmi", "--all", "--force")
            podman.run("pull", "--quiet", f"oci:{layout}")
            assert set(podman.digests().values()) == {descriptor["digest"]}
        podman.run("rmi", "--all", "--force")
        podman.run("load", "--quiet", "--input", str(saved))
        assert len(podman.digests()) == 1
        assert mount.warnings == []
    assert violations(store) == []
