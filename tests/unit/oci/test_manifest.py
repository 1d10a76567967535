import json
from dataclasses import replace

import pytest

from ocistow.oci.descriptor import (
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
)
from ocistow.oci.digest import Digest
from ocistow.oci.errors import InvalidContent
from ocistow.oci.manifest import ImageConfig, Index, Manifest, media_type_of, parse_manifest
from ocistow.oci.platform import Platform
from ocistow.testing.minimal import described, minimal_image, minimal_index

ENTRY = {"mediaType": OCI_CONFIG, "digest": f"sha256:{'0' * 64}", "size": 2}


def parse(document: object, media_type: str = OCI_MANIFEST) -> Manifest | Index:
    raw = json.dumps(document).encode()
    return parse_manifest(raw, described(raw, media_type))


def test_an_image_is_parsed() -> None:
    image = minimal_image("a")
    manifest = parse_manifest(image.load(image.root), image.root)
    assert isinstance(manifest, Manifest)
    assert manifest.raw == image.load(image.root)
    config = ImageConfig.parse(image.load(manifest.config))
    assert str(config.platform) == "linux/amd64"
    assert config.diff_ids == tuple(layer.digest for layer in manifest.layers)


def test_an_index_is_parsed() -> None:
    image = minimal_image("a")
    index = minimal_index(image)
    document = parse_manifest(index.load(index.root), index.root)
    assert isinstance(document, Index)
    assert document.manifests == (image.root,)


@pytest.mark.parametrize(
    ("change", "media_type", "message"),
    [
        ({"manifests": []}, OCI_MANIFEST, "is both an index and a manifest"),
        ({}, OCI_INDEX, "is both an index and a manifest"),
        ({"mediaType": DOCKER_MANIFEST}, OCI_MANIFEST, "says it is '.*docker"),
        ({}, "text/plain", "has the unknown media type 'text/plain'"),
        ({"schemaVersion": 1}, OCI_MANIFEST, "has schemaVersion 1, not 2"),
        ({"schemaVersion": "2"}, OCI_MANIFEST, "has schemaVersion '2', not 2"),
        ({"schemaVersion": [2]}, OCI_MANIFEST, "has schemaVersion list, not 2"),
        ({"config": None}, OCI_MANIFEST, "config of manifest .* is not an object"),
        ({"config": {**ENTRY, "mediaType": ""}}, OCI_MANIFEST, "mediaType of config .* not given"),
        ({"config": {**ENTRY, "mediaType": 1}}, OCI_MANIFEST, "mediaType .* is not a string"),
        ({"config": {**ENTRY, "digest": None}}, OCI_MANIFEST, "not a digest"),
        ({"config": {**ENTRY, "size": -1}}, OCI_MANIFEST, "is not a size: -1"),
        ({"config": {**ENTRY, "size": 1 << 63}}, OCI_MANIFEST, "is not a size: 9223"),
        ({"config": {**ENTRY, "size": True}}, OCI_MANIFEST, "is not a size: True"),
        ({"config": {**ENTRY, "size": 1.0}}, OCI_MANIFEST, r"is not a size: 1\.0"),
        (
            {"config": {**ENTRY, "annotations": []}},
            OCI_MANIFEST,
            "annotations .* not an object",
        ),
        (
            {"config": {**ENTRY, "annotations": {"a\x1b": 1}}},
            OCI_MANIFEST,
            r"'a\\x1b' in annotations .* is not a string",
        ),
        ({"config": {**ENTRY, "platform": 1}}, OCI_MANIFEST, "platform of .* not an object"),
        ({"layers": {}}, OCI_MANIFEST, "layers of .* is not an array"),
        ({"layers": [1]}, OCI_MANIFEST, "a layer of .* is not an object"),
    ],
)
def test_what_is_not_a_manifest_is_refused(
    change: dict[str, object], media_type: str, message: str
) -> None:
    with pytest.raises(InvalidContent, match=message):
        parse({"schemaVersion": 2, "config": ENTRY, "layers": [], **change}, media_type)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "is not JSON"),
        (b"[]", "is not an object"),
        (b'{"a": NaN}', "is not JSON: NaN"),
        (b'{"a": "\xff"}', "is not JSON"),
        (b'{"a": "\\udc00"}', "is not JSON"),
        ("{}".encode("utf-16"), "is not JSON"),
        (b"{" * 100_000, "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
    ],
    ids=["empty", "array", "NaN", "no UTF-8", "half a character", "UTF-16", "deep", "deeper"],
)
def test_what_is_not_a_json_object_is_refused(raw: bytes, message: str) -> None:
    with pytest.raises(InvalidContent, match=message):
        Index.parse(raw)


def test_escaped_characters_are_read() -> None:
    entry = json.dumps({**ENTRY, "annotations": {"a": "\N{PILE OF POO}"}})
    assert "\\ud83d" in entry
    index = Index.parse(f'{{"schemaVersion": 2, "manifests": [{entry}]}}'.encode())
    assert index.manifests[0].annotations == {"a": "\N{PILE OF POO}"}


@pytest.mark.parametrize(
    ("document", "media_type"),
    [
        ({"mediaType": OCI_INDEX}, OCI_INDEX),
        ({"mediaType": DOCKER_MANIFEST}, DOCKER_MANIFEST),
        ({"manifests": []}, OCI_INDEX),
        ({"config": ENTRY}, OCI_MANIFEST),
        ({"config": {**ENTRY, "mediaType": DOCKER_CONFIG}}, DOCKER_MANIFEST),
    ],
)
def test_a_media_type_is_stated_or_seen(document: object, media_type: str) -> None:
    assert media_type_of(json.dumps(document).encode()) == media_type


@pytest.mark.parametrize("document", [{}, {"mediaType": "a/b", "config": ENTRY}, {"layers": []}])
def test_a_media_type_that_cannot_be_seen_is_refused(document: object) -> None:
    with pytest.raises(InvalidContent, match="unknown media type"):
        media_type_of(json.dumps(document).encode())


@pytest.mark.parametrize("rootfs", [[], {"diff_ids": [1]}, {"diff_ids": ["sha256:0"]}])
def test_what_is_not_an_image_config_is_refused(rootfs: object) -> None:
    with pytest.raises(InvalidContent):
        ImageConfig.parse(json.dumps({"rootfs": rootfs}).encode())


def test_the_config_of_an_artifact_says_nothing() -> None:
    assert ImageConfig.parse(b"{}").diff_ids == ()


def test_descriptors_are_compared_by_what_they_name() -> None:
    one = Descriptor(OCI_INDEX, Digest.of(b""), 0, {"a": "b"})
    assert one == Descriptor(OCI_INDEX, Digest.of(b""), 0)
    assert one != Descriptor(OCI_INDEX, Digest.of(b""), 1)
    assert (one.is_index, one.is_manifest) == (True, False)


def nested(depth: int) -> object:
    return [nested(depth - 1)] if depth else []


def index_with(member: object) -> bytes:
    return json.dumps({"schemaVersion": 2, "manifests": [{**ENTRY, "x": member}]}).encode()


@pytest.mark.parametrize("depth", [0, 1, 62])
def test_a_member_that_nobody_knows_may_have_levels(depth: int) -> None:
    index = Index.parse(index_with(nested(depth)))
    assert Index.parse(Index.of(index.manifests).raw).manifests[0].given["x"] == nested(depth)


@pytest.mark.parametrize("depth", [63, 64, 500])
def test_a_member_with_too_many_levels_is_refused(depth: int) -> None:
    with pytest.raises(InvalidContent, match="an entry of index has over 64 levels"):
        Index.parse(index_with(nested(depth)))


def test_a_number_that_could_not_be_written_again_is_refused() -> None:
    with pytest.raises(InvalidContent, match="has a number that is too large"):
        Index.parse(index_with([1]).replace(b"[1]", b"[1e999]"))


def test_an_index_that_nobody_would_read_is_not_written() -> None:
    [descriptor] = Index.parse(index_with([1] * 500_000)).manifests
    with pytest.raises(InvalidContent, match=r"an index of .* bytes, at most 4194304 are accepted"):
        Index.of([descriptor])


def test_a_platform_can_be_replaced_and_taken_away() -> None:
    given = {**ENTRY, "platform": {"os": "a", "architecture": "b", "os.features": ["c"]}}
    read = Descriptor.from_document(given, "it")
    assert replace(read, platform=None).to_document() == ENTRY
    other = replace(read, platform=Platform("d", "e"))
    assert other.to_document() == {**ENTRY, "platform": {"os": "d", "architecture": "e"}}
