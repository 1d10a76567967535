"""`ocistow gc` as a user runs it, with a real registry to evict to."""

import os
from pathlib import Path

import pytest

from ocistow.testing.images import GeneratedImage, image_layout
from ocistow.testing.invariants import violations
from ocistow.testing.mounts import run

from ..conftest import DockerRegistry
from .conftest import document, everything, ok, pool


def test_what_was_removed_is_freed_after_the_grace(tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = image_layout(tmp_path / "first", seed=1)
    second = image_layout(tmp_path / "second", seed=2, layers=1)
    ok(run(store, "add", f"oci:{first.path}", "app:1"))
    ok(run(store, "add", f"oci:{second.path}", "app:2"))
    assert "until `ocistow gc`" in run(store, "rm", "app:1").stderr
    said = ok(run(store, "gc"))
    assert said == "removed 0 blobs and 0 links, 0 B freed, 5 recent ones kept\n"
    dry = document(run(store, "gc", "--grace", "0", "--dry-run", "--json"))
    assert (dry["dryRun"], dry["blobs"], pool(store) >= everything(first)) == (True, 5, True)
    done = document(run(store, "gc", "--grace=0s", "--json"))
    assert (done["blobs"], done["freedBytes"]) == (5, dry["freedBytes"])
    assert pool(store) == everything(second)
    assert violations(store) == []


@pytest.mark.parametrize("grace", ["soon", "-1", "1.5h", ""])
def test_a_grace_is_a_duration(tmp_path: Path, grace: str) -> None:
    failed = run(tmp_path / "store", "gc", f"--grace={grace}")
    assert (failed.returncode, failed.stderr.count("\n")) == (2, 1)


def test_an_index_that_nobody_understands_is_named(tmp_path: Path) -> None:
    store = tmp_path / "store"
    image = image_layout(tmp_path / "layout")
    ok(run(store, "add", f"oci:{image.path}", "a.io/b:1"))
    (store / "layouts/a.io/b/1/index.json").write_text("{")
    failed = run(store, "gc", "--grace=0")
    assert (failed.returncode, failed.stderr.count("\n")) == (os.EX_DATAERR, 1)
    assert "index.json of a.io/b/1" in failed.stderr
    assert pool(store) == everything(image)


@pytest.mark.registry
def test_layers_go_to_the_remote_and_come_back(
    tmp_path: Path, image: GeneratedImage, published: str, docker_registry: DockerRegistry
) -> None:
    store = tmp_path / "other"  # which published it
    ok(run(store, "remote", "add", "tier", f"docker://{published}"))
    assert "evicted 0 layers" in ok(run(store, "gc", "--evict"))
    found = document(run(store, "gc", "--evict", "--grace=0", "--json"))
    assert (found["blobs"], found["evicted"]["blobs"]) == (0, 4)
    assert pool(store) == {str(image.manifest), str(image.config)}
    assert violations(store, sparse=True) == []
    ok(run(store, "add", f"oci:{image.path}", "again", "--json"))
    ok(run(store, "gc", "--evict", "--grace=0"))
    target = tmp_path / "archive.tar"
    ok(run(store, "publish", "app", f"oci-archive:{target}"))
    assert pool(store) == everything(image)
    assert violations(store, sparse=True) == []
