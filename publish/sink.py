"""Where an image goes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from ..oci.descriptor import Descriptor
from ..oci.errors import InvalidContent
from ..oci.graph import Node
from ..oci.manifest import ImageConfig, Manifest
from ..oci.platform import Platform
from ..oci.reference import Reference
from .source import Source, read_document


class Action(StrEnum):
    """What was done about a blob or manifest."""

    SENT = "sent"  # its bytes were
    MOUNTED = "mounted"  # the other side took it from another of its repositories
    PRESENT = "present"  # it was there before
    ABSENT = "absent"  # neither side has it: the image is sparse


@dataclass(frozen=True, slots=True)
class Image:
    """An image about to be copied.

    Attributes:
        root: its manifest or index.
        nodes: all it consists of, each digest once, children before parents.
        source: where the blobs can be read, until the copy has ended.
    """

    root: Descriptor
    nodes: tuple[Node, ...]
    source: Source

    @property
    def blobs(self) -> Iterator[Descriptor]:
        """What is neither manifest nor index."""
        return (node.descriptor for node in self.nodes if node.document is None)

    @property
    def layers(self) -> frozenset[Descriptor]:
        """What a sparse image may lack: layers that are not a config, too."""
        manifests = [node.document for node in self.nodes if isinstance(node.document, Manifest)]
        layers = {layer for manifest in manifests for layer in manifest.layers}
        return frozenset(layers - {manifest.config for manifest in manifests})

    def for_one_platform(self) -> tuple[Manifest, ImageConfig]:
        """Return the manifest and config of an image that can be run.

        Raises:
            InvalidContent: it is an index or no image, or its config and its layers do not match.
        """
        manifest = self.nodes[-1].document
        if not isinstance(manifest, Manifest):
            raise InvalidContent(f"{self.root.digest} is not an image for one platform")
        what = f"config {manifest.config.digest}"
        config = ImageConfig.parse(read_document(self.source, manifest.config), what)
        if len(config.diff_ids) != len(manifest.layers):
            raise InvalidContent(
                f"{what} has {len(config.diff_ids)} diff_ids, "
                f"the manifest has {len(manifest.layers)} layers"
            )
        return manifest, config


def check_name(reference: Reference, root: Descriptor) -> None:
    """Refuse a name that is another digest.

    Raises:
        InvalidContent: it is.
    """
    if reference.digest not in (None, root.digest):
        raise InvalidContent(f"{reference} cannot name {root.digest}")


def host_platform() -> Platform:
    """Return what this machine runs."""
    return Platform.parse(f"linux/{os.uname().machine}")


class Sink(Protocol):
    """A name that an image can be given, and the place of its blobs.

    Used for one image, in the order of the methods. `has` and `put_blob` are
    thread-safe.
    """

    @property
    def sparse(self) -> bool:
        """Whether it takes an image some of whose layers are nowhere."""
        ...

    def platform(self) -> Platform | None:
        """Return the only platform it takes of an index, or None if it takes indexes."""
        ...

    def begin(self, image: Image) -> None:
        """Learn what will come, before anything is sent.

        Raises:
            InvalidContent: it cannot take such an image.
        """
        ...

    def has(self, descriptor: Descriptor) -> bool:
        """Tell whether a blob or manifest need not be put."""
        ...

    def put_blob(self, descriptor: Descriptor, source: Source) -> Action:
        """Take a blob, and tell whether it was sent or mounted.

        It is there when this returns, or at the latest when `tag` does.

        Raises:
            NotFound: `source` lacks it; `name` is its digest.
            InvalidContent: its bytes are not what the descriptor says.
        """
        ...

    def put_manifest(self, descriptor: Descriptor, raw: bytes) -> None:
        """Take a manifest or index whose children are there; likewise."""
        ...

    def tag(self, root: Descriptor) -> None:
        """Give the image its name; until then whatever had it stays."""
        ...

    def losses(self) -> Sequence[str]:
        """Return what of the image it does not keep, one clause each, once it was tagged."""
        ...
