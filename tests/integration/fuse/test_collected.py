"""A collector without mercy beside clients that write only what they do not find."""

import json
import threading
from pathlib import Path

import pytest

from ocistow.store.collection.collector import Collector
from ocistow.store.store import Store
from ocistow.testing.invariants import violations
from ocistow.testing.minimal import MinimalImage, minimal_image

from .conftest import Mounter

pytestmark = pytest.mark.fuse

ROUNDS = 24


def write(layout: Path, image: MinimalImage) -> None:
    """Write an image as go-containerregistry does: what stat finds is not written."""
    names = layout / "blobs" / "sha256"
    names.mkdir(parents=True, exist_ok=True)
    for digest, content in image.blobs.items():
        blob = names / digest.encoded
        if not blob.exists():
            blob.write_bytes(content)
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    index = {"schemaVersion": 2, "manifests": [image.root.to_document()]}
    (layout / "index.json").write_text(json.dumps(index))


def test_nothing_that_a_client_saw_or_wrote_is_collected(mount_store: Mounter) -> None:
    """Each image replaces another, whose blobs are garbage until they are written again."""
    with mount_store() as mount, Store.open(mount.store) as store:
        stop, removed = threading.Event(), list[int]()

        def collect() -> None:
            while not stop.is_set():
                removed.append(Collector(store, grace=0).collect().blobs)

        collector = threading.Thread(target=collect)
        collector.start()
        try:
            for number in range(ROUNDS):
                image = minimal_image(str(number % 3), [str(number % 3), "shared"])
                write(mount.path / "example.com" / "app" / str(number % 2), image)
                assert violations(mount.store) == []
        finally:
            stop.set()
            collector.join()
        assert len(removed) > ROUNDS / 4
    with Store.open(mount.store) as store:  # the mount's promises ended with it
        Collector(store, grace=0).collect()
    assert violations(mount.store) == []


def test_an_index_that_is_empty_for_a_moment_costs_nothing(mount_store: Mounter) -> None:
    """The lifecycle writes an empty index first; what it found before that, it never writes."""
    image = minimal_image("a")
    with mount_store() as mount, Store.open(mount.store) as store:
        layout = mount.path / "example.com" / "app" / "1"
        write(layout, image)
        whole = (layout / "index.json").read_bytes()
        for _ in range(ROUNDS):
            (layout / "index.json").write_text('{"schemaVersion": 2, "manifests": []}')
            Collector(store, grace=0).collect()
            assert all((layout / "blobs/sha256" / d.encoded).exists() for d in image.blobs)
            (layout / "index.json").write_bytes(whole)
            assert violations(mount.store) == []


def test_an_index_that_was_left_empty_keeps_its_blobs_when_the_mount_is_gone(
    mount_store: Mounter,
) -> None:
    """Whoever wrote it lost the mount, and with it the leases; it may be mounted again."""
    image = minimal_image("a")
    with mount_store() as mount:
        layout = mount.path / "example.com" / "app" / "1"
        write(layout, image)
        (layout / "index.json").write_text('{"schemaVersion": 2, "manifests": []}')
    with Store.open(mount.store) as store:
        Collector(store, grace=0).collect()
        assert set(store.blobs) == set(image.blobs)
