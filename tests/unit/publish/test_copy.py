import json
import threading
from pathlib import Path

import pytest

from ocistow.oci.descriptor import OCI_INDEX, Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.errors import InvalidContent, NotFound
from ocistow.oci.reference import Reference
from ocistow.publish.copy import copy
from ocistow.publish.distribution.repository import Repository
from ocistow.publish.layout import LayoutSource, StoreSink, StoreSource
from ocistow.publish.registry import RegistrySink
from ocistow.publish.sink import Action, Image
from ocistow.publish.source import Source
from ocistow.store.store import Store
from ocistow.testing.faults import Fault, Status
from ocistow.testing.images import GeneratedImage, image_layout, index_layout, sparse_layout
from ocistow.testing.registry import Registry

NAME = Reference.parse("example.org/app:1")


def test_a_second_copy_sends_nothing(store: Store, image: GeneratedImage) -> None:
    first = copy(LayoutSource(image.path), StoreSink(store, NAME))
    assert (first.sent, first.present, first.absent) == (5, 0, 0)
    second = copy(LayoutSource(image.path), StoreSink(store, NAME))
    assert (second.sent, second.present) == (0, 5)
    assert second.size(Action.SENT) == 0
    assert second.size(Action.PRESENT) == first.size(Action.SENT)
    assert second.root.digest == image.manifest


def test_present_blobs_are_not_read(store: Store, image: GeneratedImage) -> None:
    copy(LayoutSource(image.path), StoreSink(store, NAME))
    for digest in (*image.layers, image.config):
        image.blob(digest).unlink()
    assert copy(LayoutSource(image.path), StoreSink(store, NAME)).sent == 0


def test_children_come_before_parents_and_the_name_last(
    tmp_path: Path, registry: Registry, repository: Repository
) -> None:
    index = index_layout(tmp_path / "layout")
    copy(LayoutSource(index.path), RegistrySink(repository, NAME))
    puts = [request.path for request in registry.requests if request.method == "PUT"]
    manifests = [path for path in puts if "/manifests/" in path]
    assert puts[-3:] == manifests
    assert manifests == [
        *(f"/v2/app/manifests/{image.manifest}" for image in index.images),
        "/v2/app/manifests/1",
    ]


def test_each_digest_is_put_once(
    tmp_path: Path, registry: Registry, repository: Repository
) -> None:
    index = index_layout(tmp_path / "layout", layers=1)  # both images are the one shared layer
    copied = copy(LayoutSource(index.path), RegistrySink(repository, NAME))
    uploads = [request for request in registry.requests if request.method == "POST"]
    assert len(uploads) == 3  # the layer and two configs
    assert copied.sent == 6


class Noting:
    """A progress that remembers what it heard."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.total = 0
        self.moved: dict[Digest, list[int]] = {}
        self.ended: list[tuple[Digest, Action]] = []
        self.words: list[str] = []

    def begins(self, image: Image) -> None:
        self.total = sum(node.descriptor.size for node in image.nodes)

    def moves(self, descriptor: Descriptor, done: int) -> None:
        with self.lock:
            self.moved.setdefault(descriptor.digest, []).append(done)

    def ends(self, descriptor: Descriptor, action: Action) -> None:
        with self.lock:
            self.ended.append((descriptor.digest, action))

    def stage(self, what: str) -> None:
        self.words.append(what)


def test_every_blob_ends_once(store: Store, image: GeneratedImage) -> None:
    for action in (Action.SENT, Action.PRESENT):
        heard = Noting()
        copied = copy(LayoutSource(image.path), StoreSink(store, NAME), progress=heard)
        everything = {*image.layers, image.config, image.manifest}
        assert sorted(heard.ended) == sorted((digest, action) for digest in everything)
        assert heard.total == copied.size(action)


def test_bytes_are_heard_of_as_they_go(
    tmp_path: Path, registry: Registry, repository: Repository
) -> None:
    image = image_layout(tmp_path / "layout", layers=1, layer_size=3_000_000)
    heard = Noting()
    copy(LayoutSource(image.path), RegistrySink(repository, NAME), progress=heard)
    counts = heard.moved[image.layers[0]]
    assert len(counts) > 2
    assert counts == sorted(counts)
    assert counts[-1] == image.blob(image.layers[0]).stat().st_size


class LateSink(StoreSink):
    """Reads all blobs when the image gets its name, as a stream to a daemon does."""

    def begin(self, image: Image) -> None:
        super().begin(image)
        self.image = image

    def has(self, descriptor: Descriptor) -> bool:
        return False

    def put_blob(self, descriptor: Descriptor, source: Source) -> Action:
        return Action.SENT

    def tag(self, root: Descriptor) -> None:
        for blob in self.image.blobs:
            super().put_blob(blob, self.image.source)
        super().tag(root)


def test_a_blob_that_is_sent_with_the_name_ends_then(store: Store, image: GeneratedImage) -> None:
    heard = Noting()
    copy(LayoutSource(image.path), LateSink(store, NAME), progress=heard)
    assert len(heard.ended) == 5
    assert heard.ended[0] == (image.manifest, Action.SENT)


def test_blobs_are_leased_while_they_are_copied(store: Store, image: GeneratedImage) -> None:
    held: list[frozenset[Digest]] = []

    class Looking(StoreSink):
        def begin(self, image: Image) -> None:
            held.append(frozenset(store.leases.held()))

        def tag(self, root: Descriptor) -> None:
            held.append(frozenset(store.leases.held()))
            super().tag(root)

    copy(LayoutSource(image.path), Looking(store, NAME), leases=store.leases)
    assert held == [{*image.layers, image.config, image.manifest}] * 2
    assert set(store.leases.held()) == set()
    image.blob(image.layers[0]).unlink()
    with pytest.raises(NotFound):
        copy(LayoutSource(image.path), RefusingSink(store, NAME), leases=store.leases)
    assert set(store.leases.held()) == set()


class RefusingSink(StoreSink):
    """Has nothing and takes no sparse images."""

    sparse = False

    def has(self, descriptor: Descriptor) -> bool:
        return False


def test_a_sparse_image_is_added_and_published_where_its_layers_are(
    tmp_path: Path, store: Store, registry: Registry, repository: Repository
) -> None:
    sparse = sparse_layout(tmp_path / "sparse", layers=3, absent=2)
    copied = copy(LayoutSource(sparse.path), StoreSink(store, NAME))
    assert (copied.sent, copied.absent) == (3, 2)
    source = StoreSource(store.layout(NAME.path))
    with pytest.raises(NotFound) as refused:
        copy(source, RegistrySink(repository, NAME))
    assert refused.value.name in sparse.layers[:2]
    assert registry.repositories.tags("app") == {}

    whole = image_layout(tmp_path / "whole", layers=3)
    assert whole.manifest == sparse.manifest
    copy(LayoutSource(whole.path), RegistrySink(repository, Reference.parse("app:other")))
    assert copy(source, RegistrySink(repository, NAME)).present == 4
    assert set(registry.repositories.tags("app")) == {"other", "1"}


def test_a_config_must_not_be_missing(store: Store, image: GeneratedImage, named: Digest) -> None:
    image.blob(image.config).unlink()
    with pytest.raises(NotFound, match=str(image.config)):
        copy(LayoutSource(image.path), StoreSink(store, NAME))


def test_a_failure_ends_the_other_threads(
    tmp_path: Path, registry: Registry, repository: Repository
) -> None:
    image = image_layout(tmp_path / "layout", layers=30)
    registry.faults.append(Fault("PUT", "/blobs/", Status(403), times=None))
    with pytest.raises(Exception, match="403"):
        copy(LayoutSource(image.path), RegistrySink(repository, NAME), jobs=2)
    assert sum(request.method == "PUT" for request in registry.requests) <= 2


def test_manifests_that_would_fill_memory_are_refused(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = index_layout(tmp_path / "layout")
    monkeypatch.setattr("ocistow.publish.copy.MAX_DOCUMENTS", 1000)
    with pytest.raises(InvalidContent, match="over 1000 bytes"):
        copy(LayoutSource(index.path), StoreSink(store, NAME))


@pytest.mark.parametrize("depth", [9, 40])
def test_deep_nesting_is_refused(tmp_path: Path, store: Store, depth: int) -> None:
    document: object = {"schemaVersion": 2, "manifests": []}
    for _ in range(depth):
        raw = json.dumps(document).encode()
        put(tmp_path / "deep", raw)
        entry = {"mediaType": OCI_INDEX, "digest": str(Digest.of(raw)), "size": len(raw)}
        document = {"schemaVersion": 2, "manifests": [entry]}
    path = layout_of(tmp_path, document, "deep")
    with pytest.raises(InvalidContent, match="deeper than 8"):
        copy(LayoutSource(path), StoreSink(store, NAME))


def put(path: Path, raw: bytes) -> None:
    blobs = path / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    (blobs / Digest.of(raw).encoded).write_bytes(raw)


def layout_of(tmp_path: Path, root: object, name: str = "made") -> Path:
    """Make a layout whose only image is the index `root`."""
    path = tmp_path / name
    raw = json.dumps(root).encode()
    put(path, raw)
    entry = {"mediaType": OCI_INDEX, "digest": str(Digest.of(raw)), "size": len(raw)}
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return path
