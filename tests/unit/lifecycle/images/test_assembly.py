import json
from collections.abc import Generator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import cast

import pytest

from ocistow.lifecycle.images.assembly import Assembled, Assembly
from ocistow.lifecycle.images.config import History, moment
from ocistow.lifecycle.images.image import Image, Layer, open_image
from ocistow.oci.descriptor import (
    DOCKER_MANIFEST,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    REF_NAME,
    Descriptor,
)
from ocistow.oci.digest import Digest
from ocistow.oci.errors import NotFound
from ocistow.oci.reference import Reference
from ocistow.publish.copy import copy
from ocistow.publish.layout import LayoutSource, StoreSink
from ocistow.publish.packing import pack
from ocistow.store.blobs import BlobStore
from ocistow.store.ingest import Ingest
from ocistow.store.store import Store
from ocistow.testing.disk import QuickDisk
from ocistow.testing.images import Media, image_layout

DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
WHEN = moment(None)


def opened(path: Path) -> Image:
    source = LayoutSource(path)
    root = source.resolve()
    return open_image(str(path), f"{path}@{root.digest}", source, root)


@pytest.fixture
def store(tmp_path: Path) -> Generator[Store]:
    with Store.create(tmp_path / "store", QuickDisk()) as store:
        yield store


@pytest.fixture
def base(tmp_path: Path) -> Image:
    image_layout(tmp_path / "base")
    return opened(tmp_path / "base")


def packed(pool: BlobStore, content: bytes) -> tuple[Layer, Ingest]:
    done = pack(BytesIO(content), pool.ingest(), "sha256")
    return Layer(done.layer.diff_id, done.layer.blob), done.ingest


def manifest(assembled: Assembled) -> dict[str, object]:
    return cast("dict[str, object]", json.loads(assembled.documents[assembled.root.digest]))


def media_types(assembled: Assembled) -> list[str]:
    layers = cast("list[dict[str, str]]", manifest(assembled)["layers"])
    return [layer["mediaType"] for layer in layers]


def test_an_image_has_the_layers_of_its_base_and_those_put_upon_them(
    base: Image, store: Store
) -> None:
    assembly = Assembly(base)
    layer, ingest = packed(store.blobs, b"new")
    with ingest:
        assembly.add(layer, ingest, "Layer: 'new'")
        done = assembly.finish(WHEN, with_history=True)
        copy(done, StoreSink(store, Reference.parse("app")))
    image = store.layout(Reference.parse("app").path)
    assert image.index().manifests[0].digest == done.root.digest
    assert [*base.config.diff_ids, layer.diff_id] == list(done.config.diff_ids)
    assert done.config.history[-1] == History("Layer: 'new'", WHEN)
    assert layer.blob.digest in store.blobs
    assert done.image_id == Digest.of(done.config.encode())


def test_what_waits_in_the_pool_is_named_and_not_copied(base: Image, store: Store) -> None:
    assembly = Assembly(base)
    layer, ingest = packed(store.blobs, b"new")
    with ingest:
        assembly.add(layer, ingest, "")
        copy(assembly.finish(WHEN, with_history=True), StoreSink(store, Reference.parse("app")))
        with open(store.blobs.open(layer.blob.digest), "rb") as blob:
            assert Path(f"/proc/self/fd/{ingest.file}").samefile(f"/proc/self/fd/{blob.fileno()}")


def test_without_history_only_times_are_told(base: Image) -> None:
    config = Assembly(base).finish(WHEN, with_history=False).config
    assert config.history == (History(created=WHEN),) * 3


def test_names_make_no_other_image(base: Image) -> None:
    named = replace(base, annotations={REF_NAME: "x", "a": "b"})
    done = Assembly(named).finish(WHEN, with_history=True)
    assert manifest(done)["annotations"] == {"a": "b"}
    assert done.root.annotations == {}


@pytest.mark.parametrize(
    ("media", "manifest_type", "layer_type"),
    [("oci", OCI_MANIFEST, OCI_LAYER_GZIP), ("docker", DOCKER_MANIFEST, DOCKER_LAYER)],
)
@pytest.mark.parametrize("of_previous", ["oci", "docker"])
def test_layers_are_of_the_family_of_their_manifest(
    tmp_path: Path,
    store: Store,
    media: Media,
    manifest_type: str,
    layer_type: str,
    of_previous: Media,
) -> None:
    image_layout(tmp_path / "run", media=media)
    image_layout(tmp_path / "old", media=of_previous, seed=1)
    previous = opened(tmp_path / "old")
    assembly = Assembly(opened(tmp_path / "run"), previous)
    assert previous.top_layer is not None
    assembly.reuse(previous.top_layer, "")
    layer, ingest = packed(store.blobs, b"new")
    with ingest:
        assembly.add(layer, ingest, "")
        done = assembly.finish(WHEN, with_history=True)
    assert media_types(done) == [layer_type] * 5
    assert done.root.media_type == manifest(done)["mediaType"] == manifest_type


def test_a_layer_that_the_previous_image_never_had_is_not_reused(base: Image) -> None:
    with pytest.raises(NotFound) as missing:
        Assembly(base, base).reuse(Digest.of(b"other"), "")
    assert missing.value.name == Digest.of(b"other")
    with pytest.raises(NotFound):
        Assembly(base).reuse(base.config.diff_ids[0], "")


def test_a_sparse_base_stays_sparse(tmp_path: Path, store: Store) -> None:
    made = image_layout(tmp_path / "run")
    made.blob(made.layers[0]).unlink()
    done = Assembly(opened(tmp_path / "run")).finish(WHEN, with_history=True)
    assert copy(done, StoreSink(store, Reference.parse("app"))).absent == 1


def test_a_layer_that_is_reused_may_not_be_missing(
    tmp_path: Path, store: Store, base: Image
) -> None:
    old = image_layout(tmp_path / "old", seed=1)
    old.blob(old.layers[1]).unlink()
    assembly = Assembly(base, opened(tmp_path / "old"))
    assembly.reuse(old.diff_ids[1], "")
    with pytest.raises(NotFound, match=f"layer {old.diff_ids[1]} of "):
        copy(assembly.finish(WHEN, with_history=True), StoreSink(store, Reference.parse("app")))


def test_a_layer_that_the_pool_has_is_no_news(base: Image, store: Store) -> None:
    layer, ingest = packed(store.blobs, b"known")
    with ingest:
        ingest.commit()
    assembly = Assembly(base)
    assembly.add(layer, store.blobs, "")
    copied = copy(
        assembly.finish(WHEN, with_history=True), StoreSink(store, Reference.parse("app"))
    )
    assert copied.present == 1


def test_other_members_of_descriptors_stay(base: Image) -> None:
    layer = base.layers[0]
    given = {"annotations": {"a": "b"}, "urls": ["https://example.com/layer"], "other": 1}
    blob = Descriptor(
        layer.blob.media_type, layer.blob.digest, layer.blob.size, {"a": "b"}, given=given
    )
    assembly = Assembly(base)
    assembly.lend(base, Layer(layer.diff_id, blob), History())
    layers = cast("list[object]", manifest(assembly.finish(WHEN, with_history=True))["layers"])
    assert layers[-1] == {
        "mediaType": OCI_LAYER_GZIP,
        "size": blob.size,
        "digest": str(blob.digest),
        "urls": ["https://example.com/layer"],
        "annotations": {"a": "b"},
    }
