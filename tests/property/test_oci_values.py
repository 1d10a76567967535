"""Values survive being written and read, and bytes from outside are accepted or refused."""

import contextlib
from dataclasses import replace
from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ocistow.oci.descriptor import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Descriptor
from ocistow.oci.digest import Digest, is_encoded
from ocistow.oci.document import MAX_DOCUMENT, parse_object
from ocistow.oci.errors import InvalidContent
from ocistow.oci.manifest import ImageConfig, Index, media_type_of, parse_manifest
from ocistow.oci.platform import Platform
from ocistow.oci.reference import Reference
from ocistow.testing.strategies import (
    descriptors,
    digests,
    documents,
    given_descriptors,
    platforms,
    references,
)


@given(digests())
def test_a_digest_prints_as_it_is_read(digest: Digest) -> None:
    assert Digest.parse(str(digest)) == digest


@given(platforms())
def test_a_platform_prints_as_it_is_read(platform: Platform) -> None:
    assert Platform.parse(str(platform)) == platform


@given(references())
def test_a_reference_prints_as_it_is_read(reference: Reference) -> None:
    assert Reference.parse(str(reference)) == reference


@given(references())
def test_a_reference_is_found_by_its_path(reference: Reference) -> None:
    assert Reference.from_path(reference.path) == reference


@given(references(), references())
def test_two_references_share_no_path(one: Reference, other: Reference) -> None:
    assert (one.path == other.path) == (one == other)


def assert_stays_inside(path: PurePosixPath) -> None:
    assert not path.is_absolute()
    assert str(path).isprintable()
    for part in str(path).split("/"):
        assert part not in ("", ".", "..")
        assert len(part.encode()) <= 255


@given(
    st.text(max_size=30)
    | st.text(alphabet="ab./:@_-[]\0\n", max_size=20)
    | st.lists(st.sampled_from(("a", "..", ".", "", "/", ":", "@", "a.b", "t" * 200))).map("".join)
)
@example("a.b/../../etc:passwd")
@example("a.b/c:..")
@example("../a:b")
@example("a.b/c:.")
def test_no_reference_leaves_the_root(text: str) -> None:
    with contextlib.suppress(InvalidContent):
        reference = Reference.parse(text)
        assert_stays_inside(reference.path)
        assert Reference.parse(str(reference)) == reference


@given(st.lists(st.text(alphabet="ab.:@0", max_size=64), max_size=5))
def test_a_path_is_that_of_the_reference_it_names(parts: list[str]) -> None:
    path = PurePosixPath(*parts)
    reference = Reference.from_path(path)
    assert reference is None or reference.path == path


@given(descriptors())
def test_a_descriptor_is_read_as_it_was_written(descriptor: Descriptor) -> None:
    read = Descriptor.from_document(descriptor.to_document(), "it")
    assert read == descriptor
    assert (read.annotations, read.platform) == (descriptor.annotations, descriptor.platform)


@given(given_descriptors())
def test_a_descriptor_keeps_every_member(given: dict[str, object]) -> None:
    read = Descriptor.from_document(given, "it")
    assert read.to_document() == given
    index = Index.parse(Index.of([read]).raw)
    assert index.manifests[0].to_document() == given


@given(given_descriptors(), st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2))
def test_other_annotations_change_no_other_member(
    given: dict[str, object], annotations: dict[str, str]
) -> None:
    changed = replace(Descriptor.from_document(given, "it"), annotations=annotations)
    document = dict(changed.to_document())
    assert (document.pop("annotations", None) or {}) == annotations
    assert document == {name: value for name, value in given.items() if name != "annotations"}


@given(st.lists(descriptors(), max_size=4))
def test_an_index_is_read_as_it_was_written(manifests: list[Descriptor]) -> None:
    index = Index.of(manifests)
    assert Index.parse(index.raw) == index


@given(documents())
def test_any_bytes_are_a_document_or_refused(raw: bytes) -> None:
    with contextlib.suppress(InvalidContent):
        assert Index.parse(raw).raw == raw
    with contextlib.suppress(InvalidContent):
        assert ImageConfig.parse(raw).raw == raw
    with contextlib.suppress(InvalidContent):
        assert media_type_of(raw)
    for media_type in (OCI_INDEX, OCI_MANIFEST, DOCKER_MANIFEST, "text/plain"):
        with contextlib.suppress(InvalidContent):
            descriptor = Descriptor(media_type, Digest.of(raw), len(raw))
            assert parse_manifest(raw, descriptor).media_type == media_type


def refusal(raw: bytes) -> str:
    """Return why an index is refused, or nothing when it is not."""
    try:
        Index.parse(raw)
    except InvalidContent as error:
        return str(error)
    return ""


@given(documents())
def test_a_refusal_is_short_and_fit_for_a_terminal(raw: bytes) -> None:
    assert len(refusal(raw)) < 2000
    assert refusal(raw).isprintable()


@pytest.mark.parametrize("member", ["schemaVersion", "manifests", "size"])
def test_deep_nesting_is_refused(member: str) -> None:
    for depth in (*range(900, 1100), 10_000, 100_000):
        value = b"[" * depth + b"]" * depth
        if member == "size":
            digest = b'"mediaType": "a/b", "digest": "sha256:%s"' % (b"0" * 64)
            value = b'[{%s, "size": %s}]' % (digest, value)
        name = b"schemaVersion" if member == "schemaVersion" else b"manifests"
        with pytest.raises(InvalidContent):
            Index.parse(b'{"schemaVersion": 2, "%s": %s}' % (name, value))


def test_a_document_has_a_limit() -> None:
    assert parse_object(b" " * (MAX_DOCUMENT - 2) + b"{}", "it") == {}
    with pytest.raises(InvalidContent, match="at most 4194304 are accepted"):
        parse_object(b" " * (MAX_DOCUMENT - 1) + b"{}", "it")


@given(
    st.sampled_from(("sha256", "sha512", "blake3", "md5")),
    st.text(alphabet="0aAgG\n", max_size=130),
)
def test_only_full_lower_case_hashes_are_encoded(algorithm: str, text: str) -> None:
    if is_encoded(algorithm, text):
        assert Digest.parse(f"{algorithm}:{text}").encoded == text
        assert set(text) <= set("0a")
