"""A real registry as the tier behind a store, with another store behind the registry."""

import os
import subprocess
from pathlib import Path

import pytest

from ocistow.testing.faults import Fault, Stall
from ocistow.testing.images import GeneratedImage
from ocistow.testing.invariants import violations
from ocistow.testing.mounts import command_line, environment, run
from ocistow.testing.registry import Registry

from ..conftest import DockerRegistry, serving
from .conftest import LAYER_SIZE, document, everything, ok, pool

pytestmark = pytest.mark.registry


def test_a_lazy_image_is_published_from_where_it_came(
    tmp_path: Path, image: GeneratedImage, published: str, docker_registry: DockerRegistry
) -> None:
    store = tmp_path / "store"
    added = document(run(store, "add", "--lazy", f"docker://{published}:1", "app", "--json"))
    assert (added["sentBlobs"], added["absentLayers"]) == (2, 4)
    assert added["digest"] == str(image.manifest)
    for file in store.glob("index.*"):
        file.unlink()
    seen = document(run(store, "inspect", "app", "--json"))["images"][0]["layers"]
    assert [layer["expectedIn"] for layer in seen] == 4 * [[published]]
    assert f"absent, expected in {published}" in ok(run(store, "inspect", "app"))
    sent = run(store, "publish", "app", f"docker://{docker_registry.host}/elsewhere:1", "--json")
    assert document(sent)["published"][0]["digest"] == str(image.manifest)
    assert pool(store) == everything(image)
    again = f"docker://{docker_registry.host}/elsewhere:1"
    assert document(run(tmp_path / "third", "add", again, "--json"))["digest"] == str(
        image.manifest
    )
    assert violations(store, sparse=True) == []


def test_a_registry_mounts_what_a_lazy_image_lacks(
    tmp_path: Path, image: GeneratedImage, published: str, docker_registry: DockerRegistry
) -> None:
    store = tmp_path / "store"
    ok(run(store, "add", "--lazy", f"docker://{published}:1", "app"))
    ok(run(store, "publish", "app", f"docker://{docker_registry.host}/mounted:1"))
    assert pool(store) == {str(image.manifest), str(image.config)}


def test_a_remote_completes_a_sparse_image(
    tmp_path: Path, image: GeneratedImage, published: str, docker_registry: DockerRegistry
) -> None:
    store = tmp_path / "store"
    for layer in image.layers:
        image.blob(layer).unlink()
    target = f"docker://{docker_registry.host}/completed:{image.manifest.encoded[:8]}"
    ok(run(store, "add", f"oci:{image.path}", "app"))
    failed = run(store, "publish", "app", target)
    assert (failed.returncode, failed.stderr.count("\n")) == (os.EX_NOINPUT, 1)
    ok(run(store, "remote", "add", "tier", f"docker://{published}"))
    assert published in ok(run(store, "remote", "ls"))
    assert document(run(store, "publish", "app", target, "--json"))["published"][0]["sentBlobs"]
    assert pool(store) == everything(image)
    assert violations(store) == []
    ok(run(store, "remote", "rm", "tier"))
    assert document(run(store, "remote", "ls", "--json"))["remotes"] == []


def test_a_remote_that_stopped_is_one_line(
    tmp_path: Path, image: GeneratedImage, docker_registry: DockerRegistry
) -> None:
    store, other = tmp_path / "store", tmp_path / "other"
    with serving(tmp_path / "registry") as stopping:
        ok(run(other, "add", f"oci:{image.path}", "app"))
        ok(run(other, "publish", "app", f"docker://{stopping.host}/app:1"))
        ok(run(store, "add", "--lazy", f"docker://{stopping.host}/app:1", "app"))
    failed = run(store, "publish", "app", f"docker://{docker_registry.host}/never:1")
    assert failed.returncode == os.EX_TEMPFAIL
    assert failed.stderr.count("\n") == 1
    assert f"from {stopping.host}/app: connection refused" in failed.stderr.lower()
    assert pool(store) == {str(image.manifest), str(image.config)}


def test_a_fill_that_is_killed_leaves_nothing_and_can_be_done_again(
    tmp_path: Path, image: GeneratedImage
) -> None:
    store = tmp_path / "store"
    with Registry() as registry, Registry() as target:
        registry.repositories.load(image.path, "app")
        ok(run(store, "add", "--lazy", f"docker://{registry.host}/app:latest", "app"))
        stall = Stall(LAYER_SIZE // 2)
        registry.faults.append(Fault("GET", str(image.layers[2]), stall))
        publish = ("publish", "app", f"docker://{target.host}/copy:1")
        with subprocess.Popen(
            command_line(store, *publish), env=environment(), stderr=subprocess.DEVNULL
        ) as process:
            assert stall.reached.wait(30)
            process.kill()
        assert violations(store, sparse=True) == []
        assert str(image.layers[2]) not in pool(store)
        ok(run(store, *publish))
        assert pool(store) == everything(image)
        assert violations(store) == []
