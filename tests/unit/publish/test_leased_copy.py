"""Garbage that is collected while an image is copied."""

import time
from pathlib import Path

from ocistow.oci.descriptor import Descriptor
from ocistow.oci.reference import Reference
from ocistow.publish.copy import copy
from ocistow.publish.layout import LayoutSource, StoreSink, StoreSource
from ocistow.publish.sink import Image
from ocistow.store.collection.collector import Collector
from ocistow.store.store import Store
from ocistow.testing.images import image_layout

NAME = Reference.parse("example.org/app:1")
LATER = 1000.0  # seconds; what was written now is old then


def collect(store: Store) -> int:
    """Collect without any grace and return how many blobs were kept for a lease."""
    collected = Collector(store, grace=0, clock=lambda: time.time() + LATER).collect()
    return collected.leased


def test_what_a_copy_found_stays_until_it_has_a_name(tmp_path: Path, store: Store) -> None:
    image = image_layout(tmp_path / "layout")
    for digest in (*image.layers, image.config):
        store.blobs.add([image.blob(digest).read_bytes()], digest)
    kept: list[int] = []

    class Collecting(StoreSink):
        def tag(self, root: Descriptor) -> None:
            kept.append(collect(store))
            super().tag(root)

    copied = copy(LayoutSource(image.path), Collecting(store, NAME), leases=store.leases)
    assert (copied.present, copied.sent) == (4, 1)
    assert kept == [5]
    store.layout(NAME.path).remove()
    collect(store)
    assert list(store.blobs) == []


def test_an_image_that_is_removed_while_it_is_published_is_published(
    tmp_path: Path, store: Store
) -> None:
    image = image_layout(tmp_path / "layout")
    copy(LayoutSource(image.path), StoreSink(store, NAME))
    source = StoreSource(store.layout(NAME.path))
    with Store.create(tmp_path / "other") as other:

        class Removing(StoreSink):
            def begin(self, image: Image) -> None:
                store.layout(NAME.path).remove()
                collect(store)

        copied = copy(source, Removing(other, NAME), leases=store.leases)
        assert copied.sent == 5
        assert other.layout(NAME.path).index().manifests[0].digest == image.manifest
    collect(store)
    assert list(store.blobs) == []
