"""Manifests, indexes and image configurations: parsed views that keep their raw bytes.

The raw bytes are the truth: they are what a digest names, and what is stored
and sent. Nothing here serialises a document that came from elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from .descriptor import (
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    INDEXES,
    MANIFESTS,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
)
from .digest import Digest
from .document import MAX_DOCUMENT, Object, as_object, members, parse_object, string
from .errors import InvalidContent
from .platform import Platform
from .wording import quoted


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image, or one artifact. Source: image-spec, manifest.md; Docker's v2 schema 2."""

    raw: bytes
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class Index:
    """A list of manifests, such as one image for several platforms, or an `index.json`.

    Source: image-spec, image-index.md; Docker's manifest list.
    """

    raw: bytes
    media_type: str
    manifests: tuple[Descriptor, ...]

    @classmethod
    def parse(cls, raw: bytes, what: str = "index") -> Index:
        """Read an index; `what` names it in messages.

        Raises:
            InvalidContent: it is not one.
        """
        return _index(raw, parse_object(raw, what), OCI_INDEX, what)

    @classmethod
    def of(cls, manifests: Sequence[Descriptor]) -> Index:
        """Write a new index that lists `manifests`.

        Raises:
            InvalidContent: it has over `MAX_DOCUMENT` bytes, which nobody would read.
        """
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [manifest.to_document() for manifest in manifests],
        }
        raw = json.dumps(document, indent=2).encode() + b"\n"
        if len(raw) > MAX_DOCUMENT:
            raise InvalidContent(
                f"an index of {len(raw)} bytes, at most {MAX_DOCUMENT} are accepted"
            )
        return cls(raw, OCI_INDEX, tuple(manifests))


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """How an image runs and what its layers are uncompressed. Source: image-spec, config.md."""

    raw: bytes
    platform: Platform
    diff_ids: tuple[Digest, ...]
    created: str

    @classmethod
    def parse(cls, raw: bytes, what: str = "image config") -> ImageConfig:
        """Read an image config; `what` names it in messages.

        Raises:
            InvalidContent: it is not one.
        """
        document = parse_object(raw, what)
        rootfs = as_object(document.get("rootfs", {}), f"rootfs of {what}")
        diff_ids: list[Digest] = []
        for diff_id in members(rootfs.get("diff_ids"), f"diff_ids of {what}"):
            if not isinstance(diff_id, str):
                raise InvalidContent(f"diff_ids of {what} are not strings")
            diff_ids.append(Digest.parse(diff_id))
        return cls(
            raw,
            Platform.from_document(document, what),
            tuple(diff_ids),
            string(document, "created", what),
        )


def parse_manifest(raw: bytes, descriptor: Descriptor) -> Manifest | Index:
    """Read the manifest or index that `descriptor` names.

    The media type of the descriptor and the one in the document must agree,
    and no document may be both kinds, so that all tools see the same image
    (CVE-2021-41190).

    Raises:
        InvalidContent: it is neither, or not what the descriptor says.
    """
    what = f"manifest {descriptor.digest}"
    document = parse_object(raw, what)
    inner = string(document, "mediaType", what)
    if inner and inner != descriptor.media_type:
        raise InvalidContent(
            f"{what} says it is {quoted(inner)}, expected {quoted(descriptor.media_type)}"
        )
    if descriptor.media_type in INDEXES:
        return _index(raw, document, descriptor.media_type, what)
    if descriptor.media_type in MANIFESTS:
        return _manifest(raw, document, descriptor.media_type, what)
    raise InvalidContent(f"{what} has the unknown media type {quoted(descriptor.media_type)}")


def media_type_of(raw: bytes, what: str = "manifest") -> str:
    """Return the media type a manifest states, or that its members show when it states none.

    Raises:
        InvalidContent: it is no manifest or index of a known kind.
    """
    document = parse_object(raw, what)
    stated = string(document, "mediaType", what)
    if stated in INDEXES or stated in MANIFESTS:
        return stated
    if not stated and "manifests" in document:
        return OCI_INDEX
    if not stated and "config" in document:
        config = Descriptor.from_document(document["config"], f"config of {what}")
        return DOCKER_MANIFEST if config.media_type == DOCKER_CONFIG else OCI_MANIFEST
    raise InvalidContent(f"{what} has the unknown media type {quoted(stated)}")


def _index(raw: bytes, document: Object, media_type: str, what: str) -> Index:
    _version_2(document, what)
    if "layers" in document or "config" in document:
        raise InvalidContent(f"{what} is both an index and a manifest")
    entries = members(document.get("manifests"), f"manifests of {what}")
    manifests = tuple(Descriptor.from_document(e, f"an entry of {what}") for e in entries)
    return Index(raw, media_type, manifests)


def _manifest(raw: bytes, document: Object, media_type: str, what: str) -> Manifest:
    _version_2(document, what)
    if "manifests" in document:
        raise InvalidContent(f"{what} is both an index and a manifest")
    config = Descriptor.from_document(document.get("config"), f"config of {what}")
    layers = members(document.get("layers"), f"layers of {what}")
    return Manifest(
        raw,
        media_type,
        config,
        tuple(Descriptor.from_document(layer, f"a layer of {what}") for layer in layers),
    )


def _version_2(document: Object, what: str) -> None:
    if document.get("schemaVersion") != 2:
        version = quoted(document.get("schemaVersion"))
        raise InvalidContent(f"{what} has schemaVersion {version}, not 2")
