"""Hypothesis strategies for the values of `ocistow.oci`, and for bytes that only look like them."""

from __future__ import annotations

import json
import math
import re
from typing import TypeAlias

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from ..oci.descriptor import (
    DOCKER_CONFIG,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    Descriptor,
)
from ..oci.digest import HEX_LENGTHS, Digest
from ..oci.platform import Platform
from ..oci.reference import Reference

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

MEDIA_TYPES = (
    OCI_INDEX,
    OCI_MANIFEST,
    OCI_CONFIG,
    OCI_LAYER_GZIP,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    DOCKER_CONFIG,
)
_MEMBERS = (
    "schemaVersion",
    "mediaType",
    "manifests",
    "config",
    "layers",
    "digest",
    "size",
    "platform",
    "annotations",
    "rootfs",
    "diff_ids",
    "created",
    "os",
    "architecture",
)
_HOSTILE = (
    b"",
    b"\xef\xbb\xbf{}",
    b'{"schemaVersion": NaN}',
    b'{"schemaVersion": -Infinity}',
    b'{"schemaVersion": 2, "manifests": ' + b"[" * 100_000,
    b'{"size": ' + b"9" * 5000 + b"}",
    b'{"mediaType": "\\ud800"}',
    b'{"mediaType": "\xed\xa0\x80"}',
    b'{"schemaVersion": 1, "schemaVersion": 2}',
    b'{2: "schemaVersion"}',
    '{"schemaVersion": 2}'.encode("utf-16"),
    '{"schemaVersion": 2}'.encode("utf-32"),
    b'{"schemaVersion": 2, "config": {}, "manifests": []}',
    b'{"schemaVersion": 2, "schemaVersion": ' + b"[" * 980 + b"]" * 980 + b"}",
)


def digests(algorithms: tuple[str, ...] = tuple(HEX_LENGTHS)) -> SearchStrategy[Digest]:
    """Return digests of nothing in particular."""

    def of(algorithm: str) -> SearchStrategy[Digest]:
        length = HEX_LENGTHS[algorithm]
        number = st.integers(0, 16**length - 1)
        return number.map(lambda n: Digest(algorithm, f"{n:0{length}x}"))

    return st.sampled_from(algorithms).flatmap(of)


def platforms() -> SearchStrategy[Platform]:
    """Return platforms as `Platform.parse` makes them."""
    part = st.from_regex(r"[A-Za-z0-9._-]{1,10}", fullmatch=True)
    usual = st.sampled_from(("linux", "amd64", "arm64", "arm", "v7", "v8", "386", "windows"))
    parts = st.lists(part | usual, min_size=2, max_size=3)
    return parts.map(lambda parts: Platform.parse("/".join(parts)))


def references() -> SearchStrategy[Reference]:
    """Return references with names that are allowed, many of them odd."""
    element = st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,8}", fullmatch=True)
    odd = st.sampled_from(("blobs", "index.json", "sha256", "oci-layout", "library", "a..b", "..."))
    host = st.sampled_from(
        ("index.docker.io", "localhost", "localhost:5000", "a.b", "A.b:1", "[::1]:5000")
    )
    tag = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,8}", fullmatch=True) | odd
    repository = st.lists(element | odd, min_size=1, max_size=4).map("/".join)
    identifier = tag.map(":{}".format) | digests().map("@{}".format)
    parts = st.tuples(host, repository, identifier)
    texts = parts.map(lambda parts: f"{parts[0]}/{parts[1]}{parts[2]}")
    lies_among_blobs = re.compile(r"/blobs[/:@](sha256|sha512|blake3)\b")
    return texts.filter(lambda text: not lies_among_blobs.search(text)).map(Reference.parse)


def descriptors() -> SearchStrategy[Descriptor]:
    """Return descriptors, with annotations and a platform or without."""
    return st.builds(
        Descriptor,
        st.sampled_from(MEDIA_TYPES) | _text(min_size=1),
        digests(),
        st.integers(0, (1 << 63) - 1),
        st.dictionaries(_text(), _text(), max_size=3),
        st.none() | st.builds(Platform, _text(), _text(), _text(), _text()),
    )


def given_descriptors() -> SearchStrategy[dict[str, object]]:
    """Return descriptors' JSON objects, with members that we know, that we do not, and null."""
    anything = st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | _text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text(), inner, max_size=3),
        max_leaves=6,
    )
    text = _text() | st.none()
    known = {"os": text, "architecture": text, "variant": text, "os.version": text}
    platform: SearchStrategy[dict[str, object]] = st.fixed_dictionaries(
        {}, optional={**known, "os.features": st.lists(_text(), max_size=2)}
    )
    members: dict[str, SearchStrategy[object]] = {
        "annotations": st.none() | st.dictionaries(_text(), _text(), max_size=2),
        "platform": st.none() | platform,
        "artifactType": _text(),
        "urls": st.lists(_text(), max_size=2),
        "data": _text(),
    }
    required: dict[str, SearchStrategy[object]] = {
        "mediaType": st.sampled_from(MEDIA_TYPES),
        "digest": digests().map(str),
        "size": st.integers(0, (1 << 63) - 1),
    }
    others = st.dictionaries(_text(), anything, max_size=3)
    return st.tuples(others, st.fixed_dictionaries(required, optional=members)).map(
        lambda both: {**both[0], **both[1]}
    )


def documents() -> SearchStrategy[bytes]:
    """Return bytes that a parser of manifests may meet: sound, nearly sound, hostile, anything."""
    return st.one_of(
        st.binary(max_size=40),
        st.sampled_from(_HOSTILE),
        _json().map(_dumped),
        _nearly_sound().map(_dumped),
        st.builds(_cut, _nearly_sound().map(_dumped), st.floats(0, 1)),
    )


def _text(min_size: int = 0) -> SearchStrategy[str]:
    return st.text(st.characters(codec="utf-8"), min_size=min_size, max_size=12)


def _json() -> SearchStrategy[Json]:
    def deeper(inner: SearchStrategy[Json]) -> SearchStrategy[Json]:
        names = st.sampled_from(_MEMBERS) | st.text(max_size=4)
        return st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=5)

    leaves: SearchStrategy[Json] = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=8),
        st.sampled_from((2, -1, 1 << 63, math.inf)),
        st.sampled_from(MEDIA_TYPES),
        digests().map(str),
    )
    return st.recursive(leaves, deeper, max_leaves=12)


def _nearly_sound() -> SearchStrategy[dict[str, object]]:
    """Return manifests, indexes and configs in which any member may be something else."""
    descriptor = descriptors().map(Descriptor.to_document)
    members: dict[str, SearchStrategy[object]] = {
        "schemaVersion": st.just(2),
        "mediaType": st.sampled_from(MEDIA_TYPES),
        "manifests": st.lists(descriptor, max_size=3),
        "config": descriptor,
        "layers": st.lists(descriptor, max_size=3),
        "rootfs": st.fixed_dictionaries({"diff_ids": st.lists(digests().map(str), max_size=3)}),
        "created": _text(),
        "os": _text(),
    }
    sound = st.fixed_dictionaries({}, optional=members)
    odd = st.dictionaries(st.sampled_from(sorted(members)), _json(), max_size=1)
    return st.tuples(sound, odd).map(lambda both: {**both[0], **both[1]})


def _dumped(document: object) -> bytes:
    return json.dumps(document).encode()


def _cut(raw: bytes, part: float) -> bytes:
    return raw[: int(len(raw) * part)]
