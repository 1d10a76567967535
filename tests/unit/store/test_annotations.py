import json
from pathlib import Path

import pytest

from ocistow.oci.descriptor import REF_NAME
from ocistow.oci.digest import Digest
from ocistow.oci.document import MAX_DOCUMENT
from ocistow.oci.errors import InvalidContent, NotFound
from ocistow.oci.reference import Reference
from ocistow.publish.copy import copy
from ocistow.publish.layout import LayoutSource, StoreSink
from ocistow.store.annotations import annotate, annotated
from ocistow.store.layout import Layout
from ocistow.store.store import Store
from ocistow.testing.images import image_layout, index_layout, sparse_layout

NAME = Reference.parse("example.org/app:1")


def put(store: Store, path: Path) -> Layout:
    copy(LayoutSource(path), StoreSink(store, NAME))
    return store.layout(NAME.path)


def manifest(layout: Layout) -> dict[str, object]:
    found: dict[str, object] = json.loads(layout.read(layout.index().manifests[0]))
    return found


def test_an_annotated_image_has_another_manifest_and_all_else_as_before(
    tmp_path: Path, store: Store
) -> None:
    image = image_layout(tmp_path / "layout", layers=2)
    layout = put(store, image.path)
    before = manifest(layout)
    old, new = annotate(store, layout, {"b": "2 = <two>", "a": "ä"})
    assert old == image.manifest != new
    [entry] = layout.index().manifests
    assert entry.digest == new
    assert entry.annotations[REF_NAME] == "1"
    after = manifest(layout)
    assert after == {**before, "annotations": {"a": "ä", "b": "2 = <two>"}}
    assert list(after) == [*before, "annotations"]
    assert {digest for digest, _ in layout.linked()} >= {new, image.config, *image.layers}
    assert annotate(store, layout, {"a": "ä"}) == (new, new)
    assert annotate(store, layout, {"a": None, "b": None, "c": None}) == (
        new,
        Digest.of(compact(before)),
    )
    assert manifest(layout) == before


def compact(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def test_what_is_no_whole_image_for_one_platform_is_refused(tmp_path: Path, store: Store) -> None:
    with pytest.raises(NotFound):
        annotate(store, store.layout(NAME.path), {"a": "b"})
    layout = put(store, index_layout(tmp_path / "index").path)
    with pytest.raises(InvalidContent, match="not one image for one platform"):
        annotate(store, layout, {"a": "b"})


def test_a_sparse_image_is_refused(tmp_path: Path, store: Store) -> None:
    image = sparse_layout(tmp_path / "layout", layers=3, absent=1)
    layout = put(store, image.path)
    with pytest.raises(InvalidContent, match=f"is sparse: layer {image.layers[0]} is absent"):
        annotate(store, layout, {"a": "b"})
    assert layout.index().manifests[0].digest == image.manifest


def test_a_manifest_that_nobody_would_read_is_not_written() -> None:
    with pytest.raises(InvalidContent, match="at most"):
        annotated(b"{}", {"a": "b" * MAX_DOCUMENT}, "manifest")


@pytest.mark.parametrize("raw", [b"[]", b'{"annotations": []}', b'{"annotations": {"a": 1}}', b"{"])
def test_a_malformed_manifest_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidContent):
        annotated(raw, {"a": "b"}, "manifest")
