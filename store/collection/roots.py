"""What the indexes of a store mention: the roots of garbage collection."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from ...oci.descriptor import Descriptor
from ...oci.digest import Digest
from ...oci.document import MAX_DOCUMENT
from ...oci.errors import InvalidContent, NotFound
from ...oci.graph import MAX_DEPTH, walk
from ...oci.image_layout import INDEX
from ...oci.manifest import Index, Manifest
from ..layout import Layout

_DIGEST = re.compile(rb"(?:sha256|sha512|blake3):[0-9a-f]{64,128}")


@dataclass(frozen=True, slots=True)
class Mentions:
    """What an index mentions, directly or not.

    Attributes:
        layers: what can be absent; the sizes, by digest.
        others: manifests, configs, and whatever may be one of these.
    """

    layers: dict[Digest, int] = field(default_factory=dict[Digest, int])
    others: frozenset[Digest] = frozenset()

    def __contains__(self, digest: Digest) -> bool:
        return digest in self.layers or digest in self.others


def mentioned(layout: Layout) -> Mentions:
    """Return what a layout's index mentions; nothing if there is none any more.

    Raises:
        InvalidContent: it or what it reaches is malformed, or a manifest is absent.
    """
    try:
        return mentioned_by(layout, layout.index().raw)
    except NotFound:
        return Mentions()


def mentioned_by(layout: Layout, raw: bytes) -> Mentions:
    """Return what an index of a layout mentions.

    Raises:
        InvalidContent: it or what it reaches is malformed, or a manifest is absent.
    """
    index = Index.parse(raw, f"{INDEX} of {layout.name}")
    layers: dict[Digest, int] = {}
    others: set[Digest] = set()
    try:
        for root in index.manifests:
            for node in walk(root, layout.read):
                document = node.document
                others |= {node.descriptor.digest} if document else set()
                if isinstance(document, Manifest):
                    layers.update((layer.digest, layer.size) for layer in document.layers)
                    others.add(document.config.digest)
                elif isinstance(document, Index):
                    others |= _foreign(layout, document.manifests)
        others |= _foreign(layout, index.manifests)
    except NotFound as error:
        raise InvalidContent(f"{layout.name} mentions {error.name}, which is absent") from error
    return Mentions({d: size for d, size in layers.items() if d not in others}, frozenset(others))


def _foreign(layout: Layout, entries: tuple[Descriptor, ...]) -> set[Digest]:
    """Return every digest in manifests of unknown kinds, which may mean blobs."""
    found = {entry.digest for entry in entries if not (entry.is_index or entry.is_manifest)}
    level = found
    for _ in range(MAX_DEPTH):
        level = {digest for above in level for digest in _digests(layout, above)} - found
        found = found | level
    return found


def _digests(layout: Layout, digest: Digest) -> Iterator[Digest]:
    try:
        file = layout.open(digest)
    except NotFound:
        return
    with open(file, "rb") as stream:
        if os.fstat(file).st_size > MAX_DOCUMENT:
            return
        raw = stream.read(MAX_DOCUMENT)
    for match in _DIGEST.finditer(raw):
        with suppress(InvalidContent):
            yield Digest.parse(match[0].decode())
