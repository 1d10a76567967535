"""What rotted in a store comes back from a registry, manifests too."""

import subprocess
import sys
from pathlib import Path

import pytest

from ocistow.oci.reference import Reference
from ocistow.store.store import Store
from ocistow.testing.invariants import violations
from ocistow.testing.minimal import minimal_image

from ..conftest import DockerRegistry

pytestmark = pytest.mark.registry

A = minimal_image("a")
LAYER, _, CONFIG, MANIFEST = A.blobs


def ocistow(store: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "ocistow.cli", "--store", str(store), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_a_registry_gives_back_what_rotted(docker_registry: DockerRegistry, tmp_path: Path) -> None:
    with Store.create(tmp_path / "store") as store:
        A.add_to(store.blobs)
        store.put(Reference.parse("example.com/app:1"), A.root)
    where = f"docker://{docker_registry.host}/repaired"
    done = ocistow(tmp_path / "store", "publish", "example.com/app:1", f"{where}:other")
    assert done.returncode == 0, done.stderr
    for digest in (LAYER, CONFIG, MANIFEST):
        with (tmp_path / "store" / "blobs" / "sha256" / digest.encoded).open("r+b") as stream:
            stream.write(b"X")
    done = ocistow(tmp_path / "store", "verify", "--repair", where)
    assert done.returncode == 4, done.stderr
    assert done.stdout.count("bad-blob") == done.stdout.count(f"from {where}, for 1 image") == 3
    assert violations(tmp_path / "store") == []
    assert ocistow(tmp_path / "store", "verify").returncode == 0
