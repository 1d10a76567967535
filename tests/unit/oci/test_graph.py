import json

import pytest

from ocistow.oci.descriptor import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.document import MAX_DOCUMENT
from ocistow.oci.errors import InvalidContent
from ocistow.oci.graph import MAX_DEPTH, walk
from ocistow.testing.minimal import MinimalImage, described, minimal_image, minimal_index

A = minimal_image("a")
B = minimal_image("b", ["two", "three"])


def index_of(*entries: Descriptor) -> bytes:
    manifests = [entry.to_document() for entry in entries]
    return json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()


def test_children_come_first_and_each_digest_once() -> None:
    both = minimal_index(A, B, A)
    nodes = list(walk(both.root, both.load))
    digests = [node.descriptor.digest for node in nodes]
    assert len(digests) == len(set(digests)) == len(both.blobs)
    assert digests[-1] == both.root.digest
    assert digests.index(A.root.digest) > max(
        digests.index(digest) for digest in A.blobs if digest != A.root.digest
    )
    assert [node.document is None for node in nodes if node.descriptor == both.root] == [False]


def test_what_is_no_manifest_is_not_loaded() -> None:
    blob = Descriptor("application/x-artifact", Digest.of(b"x"), 1)
    assert [node.descriptor for node in walk(blob, A.load)] == [blob]


def nested(depth: int) -> MinimalImage:
    image = A
    for _ in range(depth):
        image = minimal_index(image)
    return image


def test_indexes_may_lie_within_indexes() -> None:
    deepest = nested(MAX_DEPTH - 1)
    assert len(list(walk(deepest.root, deepest.load))) == len(deepest.blobs)


def test_too_many_indexes_within_indexes_are_refused() -> None:
    too_deep = nested(MAX_DEPTH)
    with pytest.raises(InvalidContent, match="lies deeper than 8 indexes"):
        list(walk(too_deep.root, too_deep.load))


def test_a_manifest_over_the_limit_is_not_even_loaded() -> None:
    large = Descriptor(OCI_MANIFEST, Digest.of(b""), MAX_DOCUMENT + 1)
    with pytest.raises(InvalidContent, match="has 4194305 bytes, at most 4194304"):
        list(walk(large, A.load))


def test_a_manifest_that_is_larger_than_announced_is_refused() -> None:
    with pytest.raises(InvalidContent, match="at most 4194304"):
        list(walk(A.root, lambda _: b" " * (MAX_DOCUMENT + 1)))


def test_a_cycle_is_refused() -> None:
    lie = Descriptor(OCI_INDEX, Digest.of(b""), 1)
    with pytest.raises(InvalidContent, match="contains itself"):
        list(walk(lie, lambda _: index_of(lie)))


def test_a_cycle_of_two_is_refused() -> None:
    one, two = (Descriptor(OCI_INDEX, Digest.of(text), 1) for text in (b"1", b"2"))
    with pytest.raises(InvalidContent, match="contains itself"):
        list(walk(one, lambda descriptor: index_of(two if descriptor == one else one)))


def test_too_many_blobs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocistow.oci.graph.MAX_NODES", 3)
    with pytest.raises(InvalidContent, match="more than 3 descriptors"):
        list(walk(A.root, A.load))


@pytest.mark.parametrize(
    "leaf",
    [
        pytest.param(Descriptor(OCI_LAYER, A.root.digest, A.root.size), id="as a layer"),
        pytest.param(Descriptor(OCI_INDEX, A.root.digest, A.root.size), id="as an index"),
        pytest.param(Descriptor(OCI_MANIFEST, A.root.digest, A.root.size + 1), id="larger"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_one_digest_described_in_two_ways_is_refused(leaf: Descriptor, first: bool) -> None:
    raw = index_of(*((leaf, A.root) if first else (A.root, leaf)))
    root = described(raw, OCI_INDEX)
    with pytest.raises(InvalidContent):
        list(walk(root, lambda descriptor: raw if descriptor == root else A.load(descriptor)))


def test_one_blob_may_have_two_media_types() -> None:
    empty = Digest.of(b"{}")
    raw = index_of(Descriptor(OCI_CONFIG, empty, 2), Descriptor("application/json", empty, 2))
    root = described(raw, OCI_INDEX)
    assert len(list(walk(root, lambda _: raw))) == 2
