"""Descriptors and media types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .digest import Digest
from .document import Object, as_object, size, string, strings, writable
from .errors import InvalidContent
from .platform import Platform

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"

INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
IMAGE_CONFIGS = frozenset({OCI_CONFIG, DOCKER_CONFIG})

REF_NAME = "org.opencontainers.image.ref.name"


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What some content is, its name and its size in bytes.

    Source: image-spec, descriptor.md. Two descriptors are equal when media
    type, digest and size are; the others only describe.

    Attributes:
        given: the JSON object that was read, whose other members are written as they were.
    """

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict[str, str], compare=False)
    platform: Platform | None = field(default=None, compare=False)
    given: Object = field(default_factory=dict[str, object], compare=False, repr=False)

    @classmethod
    def from_document(cls, value: object, what: str) -> Descriptor:
        """Read a descriptor's JSON object; `what` names it in messages.

        Raises:
            InvalidContent: a required member is absent or malformed.
        """
        document = writable(as_object(value, what), what)
        media_type = string(document, "mediaType", what)
        if not media_type:
            raise InvalidContent(f"mediaType of {what} is not given")
        return cls(
            media_type,
            Digest.parse(string(document, "digest", what)),
            size(document, "size", what),
            strings(document, "annotations", what),
            _platform(document, what),
            document,
        )

    def to_document(self) -> Object:
        """Return the JSON object."""
        document: dict[str, object] = {
            **self.given,
            "mediaType": self.media_type,
            "digest": str(self.digest),
            "size": self.size,
        }
        if self.annotations != strings(self.given, "annotations", "it"):
            document["annotations"] = dict(self.annotations)
        if self.platform is None:
            document = {k: v for k, v in document.items() if k != "platform" or v is None}
        elif self.platform != _platform(self.given, "it"):
            document["platform"] = self.platform.to_document()
        return document

    @property
    def is_index(self) -> bool:
        """Whether this names an index (or Docker manifest list)."""
        return self.media_type in INDEXES

    @property
    def is_manifest(self) -> bool:
        """Whether this names an image manifest."""
        return self.media_type in MANIFESTS


def _platform(document: Object, what: str) -> Platform | None:
    platform = document.get("platform")
    if platform is None:
        return None
    return Platform.from_document(as_object(platform, f"platform of {what}"), what)
