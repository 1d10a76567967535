"""What a registry has already is not sent to it: from memory, by its word, or by mount."""

import json
import os
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from ocistow.oci.descriptor import OCI_INDEX
from ocistow.oci.digest import Digest
from ocistow.oci.errors import OcistowError
from ocistow.oci.platform import Platform
from ocistow.publish.access import Access
from ocistow.publish.copy import Copied, copy
from ocistow.publish.layout import LayoutSource, StoreSink
from ocistow.publish.several import Place, copy_to_each
from ocistow.publish.transports import open_sink, open_source
from ocistow.store.store import Store
from ocistow.testing.faults import Fault, Status
from ocistow.testing.images import GeneratedImage, image_layout, index_layout
from ocistow.testing.registry import Registry
from ocistow.testing.tokens import TokenServer

from .conftest import NAME

Push = Callable[[Path, str], Copied]


@pytest.fixture
def push(store: Store, registry: Registry) -> Push:
    """Push a layout's only image with what the store remembers."""

    def push(path: Path, name: str) -> Copied:
        registry.requests.clear()
        with open_sink(f"docker://{registry.host}/{name}", store) as sink:
            return copy(LayoutSource(path), sink)

    return push


def methods(registry: Registry) -> list[str]:
    return [request.method for request in registry.requests]


def mounts(registry: Registry) -> list[str]:
    return [request.path for request in registry.requests if "mount=" in request.path]


def built_on(base: GeneratedImage, path: Path, seed: int = 1) -> GeneratedImage:
    return image_layout(path, seed=seed, layers=1, base=base)


def test_layers_are_mounted_from_where_they_were_pulled(
    tmp_path: Path, store: Store, registry: Registry, push: Push
) -> None:
    base = image_layout(tmp_path / "base", layers=3)
    registry.repositories.load(base.path, "library/base")
    with open_source(f"docker://{registry.host}/library/base", store) as source:
        copy(source, StoreSink(store, NAME))
    image = built_on(base, tmp_path / "app")
    copied = push(image.path, "app:1")
    assert (copied.mounted, copied.present, copied.sent) == (3, 0, 3)
    assert registry.repositories.tags("app") == {"1": image.manifest}
    # the tag, three mounts; HEAD, POST and PUT of layer and config; the manifest
    assert len(registry.requests) == 1 + 3 + 2 * 3 + 1


def test_layers_are_mounted_from_where_they_were_pushed(
    tmp_path: Path, registry: Registry, push: Push
) -> None:
    base = image_layout(tmp_path / "base", layers=3)
    push(base.path, "base:1")
    assert push(base.path, "copy/of:1").mounted == 4
    # the tag, the mounts, the manifest
    assert sorted(methods(registry)) == ["GET", *["POST"] * 4, "PUT"]
    assert push(built_on(base, tmp_path / "app").path, "app:1").mounted == 3


def test_a_mount_that_is_not_possible_becomes_the_upload(
    tmp_path: Path, registry: Registry, push: Push
) -> None:
    base = image_layout(tmp_path / "base", layers=3)
    push(base.path, "base:1")
    registry.repositories.delete("base", *base.layers)
    copied = push(base.path, "app:1")
    assert (copied.mounted, copied.sent) == (1, 4)
    assert methods(registry).count("POST") == 4  # no upload was begun in vain
    assert methods(registry).count("DELETE") == 0
    assert methods(registry).count("HEAD") == 3
    push(base.path, "more:1")  # from app, which is known better now
    assert len(mounts(registry)) == 4
    assert all("from=app" in path for path in mounts(registry) if str(base.config) not in path)


@pytest.mark.parametrize("status", [401, 403])
def test_a_repository_that_may_not_be_read_is_asked_once(
    tmp_path: Path, store: Store, registry: Registry, push: Push, status: int
) -> None:
    base = image_layout(tmp_path / "base", layers=3)
    push(base.path, "base:1")
    registry.faults.append(Fault("POST", "mount=", Status(status), times=None))
    with open_sink(f"docker://{registry.host}/app:1", store) as sink:
        registry.requests.clear()
        assert copy(LayoutSource(base.path), sink, jobs=1).sent == 5
    assert len(mounts(registry)) == 1
    assert registry.repositories.tags("app") == {"1": base.manifest}


@pytest.mark.parametrize("allowed", [True, False])
def test_a_token_for_both_repositories_is_asked_for(
    tmp_path: Path, store: Store, registry: Registry, push: Push, *, allowed: bool
) -> None:
    base = image_layout(tmp_path / "base", layers=6)
    push(base.path, "base:1")
    image = built_on(base, tmp_path / "app")
    with TokenServer() as tokens:
        tokens.users["me"] = "secret"
        tokens.rights = [("me", "repository:app:pull,push")]
        if allowed:
            tokens.rights.append(("me", "repository:base:pull"))
        registry.guard = tokens.guard
        registry.requests.clear()
        access = Access(("me", "secret"))
        with open_sink(f"docker://{registry.host}/app:1", store, access=access) as sink:
            copied = copy(LayoutSource(image.path), sink, jobs=1)
        assert len(tokens.requests) <= 3
    assert (copied.mounted, copied.sent) == ((6, 3) if allowed else (0, 9))
    refused = [r for r in registry.requests if r.status == 401 and "mount=" in r.path]
    assert len(refused) <= (1 if allowed else 2)


@pytest.mark.parametrize("status", [400, 404, 405, 500])
def test_a_registry_that_refuses_mounts_gets_uploads(
    tmp_path: Path, registry: Registry, push: Push, status: int
) -> None:
    base = image_layout(tmp_path / "base", layers=1)
    push(base.path, "base:1")
    registry.faults.append(Fault("POST", "mount=", Status(status), times=None))
    assert push(base.path, "app:1").sent == 3
    assert push(base.path, "more:1").mounted == 0
    assert not [path for path in mounts(registry) if "from=base" in path]  # it is forgotten


def test_a_large_blob_is_worth_a_second_question(
    tmp_path: Path, registry: Registry, push: Push
) -> None:
    base = image_layout(tmp_path / "base", layers=1, layer_size=2 << 20, compression="none")
    push(base.path, "first:1")
    push(base.path, "second:1")
    registry.repositories.delete("second", *base.layers)
    assert push(base.path, "app:1").mounted == 2
    assert methods(registry).count("DELETE") == 1  # of the upload that the first mount began


def test_a_blob_whose_mount_failed_is_asked_for_before_it_is_sent(
    tmp_path: Path, registry: Registry, push: Push
) -> None:
    base = image_layout(tmp_path / "base", layers=1)
    push(base.path, "base:1")
    registry.repositories.delete("base", *base.layers)
    registry.repositories.load(base.path, "app")
    copied = push(base.path, "app:1")
    assert (copied.mounted, copied.present, copied.sent) == (1, 1, 1)
    assert methods(registry).count("DELETE") == 1


def test_another_tag_costs_one_question_about_the_image_before(
    tmp_path: Path, registry: Registry, push: Push
) -> None:
    base = image_layout(tmp_path / "base", layers=12)
    push(base.path, "app:1")
    copied = push(built_on(base, tmp_path / "next").path, "app:2")
    assert (copied.present, copied.sent) == (12, 3)
    # the new tag, the old manifest; HEAD, POST and PUT of layer and config; the manifest
    assert len(registry.requests) == 2 + 2 * 3 + 1
    push(base.path, "app:3")
    assert methods(registry) == ["GET", "GET", "PUT"]


def test_a_registry_that_was_emptied_gets_everything_again(
    tmp_path: Path, registry: Registry, push: Push
) -> None:
    base = image_layout(tmp_path / "base", layers=3)
    push(base.path, "app:1")
    registry.repositories.clear()
    assert push(base.path, "app:2").sent == 5
    assert methods(registry).count("GET") == 2
    registry.repositories.clear()
    assert push(base.path, "app:1").sent == 5


def test_an_index_is_compared_with_the_one_before(
    tmp_path: Path, registry: Registry, push: Push
) -> None:
    index = index_layout(tmp_path / "index", layers=3)
    push(index.path, "app:1")
    arm = index.images[1]
    changed = image_layout(tmp_path / "changed", seed=7, layers=1, base=arm)
    path = with_member(index.path, tmp_path / "next", 1, changed)
    copied = push(path, "app:1")
    # one manifest and its blobs are the same; of the other, layers of the image before
    assert (copied.present, copied.sent) == (3 + 1 + 1 + 2, 1 + 1 + 1 + 1)
    heads = [request for request in registry.requests if request.method == "HEAD"]
    assert len(heads) == 2  # the new layer and its config
    assert len([r for r in registry.requests if r.method == "GET"]) == 2


def test_an_image_takes_the_tag_of_the_index_that_has_it(
    tmp_path: Path, store: Store, registry: Registry, push: Push
) -> None:
    index = index_layout(tmp_path / "index")
    push(index.path, "app:1")
    arm = Platform.parse("linux/arm64")
    with open_sink(f"docker://{registry.host}/app:1", store) as sink:
        registry.requests.clear()
        copied = copy(LayoutSource(index.path, platform=arm), sink)
    assert copied.root.digest == index.images[1].manifest
    assert registry.repositories.tags("app") == {"1": index.images[1].manifest}
    assert methods(registry) == ["GET", "PUT"]


def with_member(before: Path, path: Path, at: int, image: GeneratedImage) -> Path:
    """Make an index in which one image is another."""
    [entry] = json.loads((before / "index.json").read_bytes())["manifests"]
    blobs = path / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for source in (before, image.path):
        for blob in (source / "blobs" / "sha256").iterdir():
            if not (blobs / blob.name).exists():
                os.link(blob, blobs / blob.name)
    index = json.loads((blobs / entry["digest"].removeprefix("sha256:")).read_bytes())
    raw = image.blob(image.manifest).read_bytes()
    index["manifests"][at] |= {"digest": str(image.manifest), "size": len(raw)}
    document = json.dumps(index).encode()
    digest = Digest.of(document)
    (blobs / digest.encoded).write_bytes(document)
    root = {"mediaType": OCI_INDEX, "digest": str(digest), "size": len(document)}
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [root]}))
    (path / "oci-layout").write_bytes((before / "oci-layout").read_bytes())
    return path


def test_two_tags_of_one_repository_get_each_blob_once(
    tmp_path: Path, store: Store, registry: Registry
) -> None:
    image = image_layout(tmp_path / "image", layers=6, layer_size=200_000)
    outcomes: list[Copied | OcistowError | OSError] = []
    places = [
        Place(partial(open_sink, f"docker://{registry.host}/app:{tag}", store), outcomes.append)
        for tag in "abc"
    ]
    copy_to_each(LayoutSource(image.path), places, jobs=6)
    assert len(outcomes) == 3
    for outcome in outcomes:
        assert isinstance(outcome, Copied)
    assert registry.repositories.tags("app") == dict.fromkeys("abc", image.manifest)
    sent = [r.path for r in registry.requests if r.method == "PUT" and "/uploads/" in r.path]
    assert len(sent) == 7


@contextmanager
def unwritable(path: Path) -> Generator[None]:
    """Put a directory where the database is, and something in it."""
    path.unlink(missing_ok=True)
    (path / "full").mkdir(parents=True)
    yield
    shutil.rmtree(path)


def test_a_database_that_cannot_be_used_fails_no_copy(
    store: Store,
    registry: Registry,
    push: Push,
    image: GeneratedImage,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with unwritable(store.path / "index.sqlite"):
        assert push(image.path, "app:1").sent == 5
        with open_source(f"docker://{registry.host}/app:1", store) as source:
            assert copy(source, StoreSink(store, NAME)).sent == 5
    assert "what registries have is not remembered" in caplog.text
