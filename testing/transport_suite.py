"""What every transport must do: places that images go to, and places that they come from.

A test module derives `Test…` from `SinkSuite` and `SourceSuite` and provides the fixture
`kind`; see tests/conformance/test_transports.py.
"""

# ruff: noqa: D102 - the name of a test is a sentence

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..oci.descriptor import OCI_LAYER, Descriptor
from ..oci.digest import Digest
from ..oci.errors import InvalidContent, NotFound, OcistowError, RegistryError
from ..oci.graph import walk
from ..oci.platform import Platform
from ..oci.reference import Reference
from ..publish.copy import copy
from ..publish.layout import LayoutSource, StoreSink, StoreSource
from ..publish.sink import Action, Image
from ..publish.source import Source, read_document
from ..store.store import Store
from .images import GeneratedIndex, artifact_layout, image_layout, index_layout
from .transports import NAME, Kind, Peer, fetch, send

ABSENT = Digest.of(b"what nobody has")


class SinkSuite:
    """The tests of where images go; each gets a peer that is empty, or a name of its own."""

    def test_an_image_gets_its_name(self, kind: Kind, peer: Peer, tmp_path: Path) -> None:
        image = image_layout(tmp_path / "layout")
        copied = send(image.path, peer)
        assert copied.root.digest == image.manifest
        assert kind.named(peer) == kind.identity(image)
        assert bool(copied.losses) == kind.loses
        assert all(loss == loss.strip() and "\n" not in loss for loss in copied.losses)

    def test_everything_has_an_outcome(self, kind: Kind, peer: Peer, tmp_path: Path) -> None:
        image = image_layout(tmp_path / "layout")
        everything = {*image.layers, image.config, image.manifest}
        for _ in range(2):
            copied = send(image.path, peer)
            digests = Counter(outcome.descriptor.digest for outcome in copied.outcomes)
            assert digests == Counter(everything)
            assert all(outcome.seconds >= 0 for outcome in copied.outcomes)

    def test_a_second_copy_sends_nothing(self, kind: Kind, peer: Peer, tmp_path: Path) -> None:
        image = image_layout(tmp_path / "layout")
        first, second = send(image.path, peer), send(image.path, peer)
        assert first.sent > 0
        assert second.sent == (0 if kind.remembers else first.sent)
        assert kind.named(peer) == kind.identity(image)

    def test_the_next_build_sends_what_changed(
        self, kind: Kind, peer: Peer, tmp_path: Path
    ) -> None:
        base = image_layout(tmp_path / "base", layers=3)
        built = image_layout(tmp_path / "built", seed=1, layers=1, base=base)
        for layout in (base.path, built.path):
            reference = Reference.parse(layout.name)
            copy(LayoutSource(layout), StoreSink(peer.here, reference))
            with peer.sink(NAME) as sink:
                copied = copy(StoreSource(peer.here.layout(reference.path)), sink)
        sent = {o.descriptor.digest for o in copied.outcomes if o.action is Action.SENT}
        if kind.remembers:
            assert sent.isdisjoint(base.layers)
        assert {built.layers[-1], built.config} <= sent
        assert kind.named(peer) == kind.identity(built)

    def test_a_missing_config_leaves_the_name_as_it_was(
        self, kind: Kind, peer: Peer, tmp_path: Path
    ) -> None:
        image = image_layout(tmp_path / "layout", seed=1)
        image.blob(image.config).unlink()
        self.refused(kind, peer, tmp_path, image.path, NotFound, image.config)

    def test_a_missing_layer_leaves_the_name_as_it_was(
        self, kind: Kind, peer: Peer, tmp_path: Path
    ) -> None:
        image = image_layout(tmp_path / "layout", seed=1)
        image.blob(image.layers[1]).unlink()
        with peer.sink(NAME) as sink:
            takes_it = sink.sparse
        if takes_it:
            assert send(image.path, peer).absent == 1
        else:
            self.refused(kind, peer, tmp_path, image.path, NotFound, image.layers[1])

    def test_wrong_bytes_leave_the_name_as_it_was(
        self, kind: Kind, peer: Peer, tmp_path: Path
    ) -> None:
        image = image_layout(tmp_path / "layout", seed=1)
        blob = image.blob(image.layers[1])
        raw = bytearray(blob.read_bytes())
        raw[len(raw) // 2] ^= 1
        blob.write_bytes(raw)
        self.refused(kind, peer, tmp_path, image.path, (InvalidContent, RegistryError))

    def test_a_blob_of_another_size_leaves_the_name_as_it_was(
        self, kind: Kind, peer: Peer, tmp_path: Path
    ) -> None:
        image = image_layout(tmp_path / "layout", seed=1)
        blob = image.blob(image.layers[1])
        blob.write_bytes(blob.read_bytes()[:-1])
        self.refused(kind, peer, tmp_path, image.path, InvalidContent)

    def test_what_was_not_tagged_has_no_name(self, kind: Kind, peer: Peer, tmp_path: Path) -> None:
        old = image_layout(tmp_path / "old", layers=1)
        new = image_layout(tmp_path / "new", seed=1)
        send(old.path, peer)
        source = LayoutSource(new.path)
        with peer.sink(NAME) as sink:
            image = image_of(source)
            sink.begin(image)
            for blob in image.blobs:
                if not sink.has(blob):
                    sink.put_blob(blob, source)
            for node in image.nodes:
                if node.document is not None and not sink.has(node.descriptor):
                    sink.put_manifest(node.descriptor, node.document.raw)
        assert kind.named(peer) == kind.identity(old)

    def test_a_name_that_is_another_digest_is_refused(
        self, kind: Kind, peer: Peer, tmp_path: Path
    ) -> None:
        if not kind.references:
            return
        image = image_layout(tmp_path / "layout")
        error = error_of(partial(send, image.path, peer, f"{NAME}@{ABSENT}"))
        assert isinstance(error, InvalidContent), error
        if kind.names_digests:
            send(image.path, peer, f"{NAME}@{image.manifest}")
            assert kind.named(peer, f"{NAME}@{image.manifest}") == image.manifest
            assert kind.named(peer, f"{NAME}@{ABSENT}") is None

    def test_several_platforms_are_taken_whole_or_one_is_chosen(
        self, kind: Kind, peer: Peer, tmp_path: Path
    ) -> None:
        index = index_layout(tmp_path / "layout")
        copied = send(index.path, peer)
        if kind.indexes:
            assert copied.root.digest == index.index
            assert kind.named(peer) == index.index
        else:
            assert copied.root.digest in {image.manifest for image in index.images}
            assert kind.named(peer) in {kind.identity(image) for image in index.images}

    def test_one_platform_is_sent_alone(self, kind: Kind, peer: Peer, tmp_path: Path) -> None:
        index = index_layout(tmp_path / "layout")
        copied = send(index.path, peer, platform=Platform("linux", "amd64"))
        assert copied.root.digest == index.images[0].manifest
        assert kind.named(peer) == kind.identity(index.images[0])

    def test_an_artifact_is_taken_or_refused(self, kind: Kind, peer: Peer, tmp_path: Path) -> None:
        digest = artifact_layout(tmp_path / "layout", [b"content", b""])
        if kind.artifacts:
            send(tmp_path / "layout", peer)
            assert kind.named(peer) == digest
        else:
            self.refused(kind, peer, tmp_path, tmp_path / "layout", (InvalidContent, RegistryError))

    def test_media_types_of_docker_stay(self, kind: Kind, peer: Peer, tmp_path: Path) -> None:
        image = image_layout(tmp_path / "layout", media="docker")
        assert send(image.path, peer).root.digest == image.manifest
        assert kind.named(peer) == kind.identity(image)

    def test_many_blobs_go_at_once(self, kind: Kind, peer: Peer, tmp_path: Path) -> None:
        image = image_layout(tmp_path / "layout", layers=20, layer_size=1000)
        copied = send(image.path, peer, jobs=8)
        assert len(copied.outcomes) == 22
        assert kind.named(peer) == kind.identity(image)

    def refused(
        self,
        kind: Kind,
        peer: Peer,
        tmp_path: Path,
        layout: Path,
        error: type[OcistowError] | tuple[type[OcistowError], ...],
        name: Digest | None = None,
    ) -> None:
        """Send a layout that must be refused, while another image has the name."""
        old = image_layout(tmp_path / "before", layers=1)
        send(old.path, peer)
        found = error_of(partial(send, layout, peer))
        assert isinstance(found, error), found
        if name is not None:
            assert isinstance(found, NotFound)
            assert found.name == name
        assert "\n" not in str(found)
        assert kind.named(peer) == kind.identity(old)


class SourceSuite:
    """The tests of where images come from; each gets a peer to which the sink brought them."""

    def test_an_image_comes_back_whole(
        self, kind: Kind, peer: Peer, tmp_path: Path, store: Store
    ) -> None:
        image = image_layout(tmp_path / "layout")
        send(image.path, peer)
        copied = fetch(peer, store)
        if kind.keeps == "manifest":
            assert copied.root.digest == image.manifest
            assert set(store.blobs) == {*image.layers, image.config, image.manifest}
        raw = content_of(store, image.config)
        assert raw == image.blob(image.config).read_bytes()
        for digest in store.blobs:
            assert Digest.of(content_of(store, digest)) == digest

    def test_what_the_store_has_is_not_taken_again(
        self, kind: Kind, peer: Peer, tmp_path: Path, store: Store
    ) -> None:
        image = image_layout(tmp_path / "layout")
        send(image.path, peer)
        fetch(peer, store)
        again = fetch(peer, store)
        assert again.sent == 0
        assert again.present == 5

    def test_what_is_absent_is_not_found(
        self, kind: Kind, peer: Peer, tmp_path: Path, store: Store
    ) -> None:
        error = error_of(partial(fetch, peer, store, "absent"))
        assert isinstance(error, NotFound | FileNotFoundError), error
        assert "absent" in str(error)
        image = image_layout(tmp_path / "layout")
        send(image.path, peer)
        with peer.source(NAME) as source:
            source.resolve()
            lacking = Descriptor(OCI_LAYER, ABSENT, 15)
            error = error_of(lambda: source.open(lacking).close())
        assert isinstance(error, NotFound), error
        assert error.name == ABSENT

    def test_several_platforms_come_back_whole_or_one_alone(
        self, kind: Kind, peer: Peer, tmp_path: Path, store: Store
    ) -> None:
        if not kind.indexes:
            return
        index: GeneratedIndex = index_layout(tmp_path / "layout")
        send(index.path, peer)
        arm = index.images[1].manifest
        assert fetch(peer, store, platform=Platform("linux", "arm64")).root.digest == arm
        assert index.images[0].manifest not in store.blobs
        assert fetch(peer, store).root.digest == index.index
        error = error_of(partial(fetch, peer, store, platform=Platform("linux", "s390x")))
        assert isinstance(error, NotFound), error

    def test_an_artifact_comes_back(
        self, kind: Kind, peer: Peer, tmp_path: Path, store: Store
    ) -> None:
        if not kind.artifacts:
            return
        digest = artifact_layout(tmp_path / "layout", [b"content", b""])
        send(tmp_path / "layout", peer)
        assert fetch(peer, store).root.digest == digest
        assert content_of(store, Digest.of(b"")) == b""

    def test_blobs_are_read_by_several_threads(
        self, kind: Kind, peer: Peer, tmp_path: Path, store: Store
    ) -> None:
        image = image_layout(tmp_path / "layout", layers=6, layer_size=300_000)
        send(image.path, peer)
        wrong: list[object] = []

        def read(source: Source, blob: Descriptor) -> None:
            try:
                with source.open(blob) as opened:
                    content = b"".join(opened)
                if Digest.of(content) != blob.digest:
                    wrong.append(blob.digest)
            except BaseException as error:  # shown below, in the thread of the test
                wrong.append(error)

        with peer.source(NAME) as source:
            blobs = [*image_of(source).blobs] * 2
            threads = [threading.Thread(target=read, args=(source, blob)) for blob in blobs]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert wrong == []


def image_of(source: Source) -> Image:
    """Return what a source's image consists of."""
    root = source.resolve()
    return Image(root, tuple(walk(root, partial(read_document, source))), source)


def content_of(store: Store, digest: Digest) -> bytes:
    """Return a blob of a store."""
    with open(store.blobs.open(digest), "rb") as file:
        return file.read()


def error_of(action: Callable[[], object]) -> Exception | None:
    """Return what an action raises, or None."""
    try:
        action()
    except Exception as error:
        return error
    return None
