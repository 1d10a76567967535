"""The smallest images that are images: values, made without a store or a disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..oci.descriptor import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Descriptor
from ..oci.digest import Digest
from ..oci.image_layout import INDEX, MARKER, MARKER_CONTENT, blob_path
from ..oci.manifest import Index
from ..store.blobs import BlobStore


@dataclass(frozen=True, slots=True)
class MinimalImage:
    """An image, or an index of images, with the content of every blob; layers are no tars."""

    root: Descriptor
    blobs: Mapping[Digest, bytes]

    def load(self, descriptor: Descriptor) -> bytes:
        """Return the content of one of the blobs."""
        return self.blobs[descriptor.digest]

    def add_to(self, pool: BlobStore, *, without: Sequence[Digest] = ()) -> None:
        """Store the blobs."""
        for digest, content in self.blobs.items():
            if digest not in without:
                pool.add([content], digest)

    def write_to(self, layout: Path) -> None:
        """Write a plain layout, whose files are not read-only: who takes it in copies them."""
        for digest, content in self.blobs.items():
            file = layout / blob_path(digest)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        (layout / MARKER).write_bytes(MARKER_CONTENT)
        (layout / INDEX).write_bytes(Index.of([self.root]).raw)


def minimal_image(text: str, layers: Sequence[str] = ("one", "two")) -> MinimalImage:
    """Make an image; another `text` makes another image, which may share layers."""
    contents = [f"layer {layer}".encode() for layer in layers]
    config = json.dumps(
        {
            "os": "linux",
            "architecture": "amd64",
            "author": text,
            "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(c)) for c in contents]},
        }
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": described(config, OCI_CONFIG).to_document(),
            "layers": [described(content, OCI_LAYER).to_document() for content in contents],
        }
    ).encode()
    blobs = {Digest.of(content): content for content in (*contents, config, manifest)}
    return MinimalImage(described(manifest, OCI_MANIFEST), blobs)


def minimal_index(*images: MinimalImage) -> MinimalImage:
    """Make an index of images or of other indexes."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [image.root.to_document() for image in images],
    }
    index = json.dumps(document).encode()
    blobs = {digest: content for image in images for digest, content in image.blobs.items()}
    return MinimalImage(described(index, OCI_INDEX), {**blobs, Digest.of(index): index})


def described(content: bytes, media_type: str) -> Descriptor:
    """Return the descriptor of some content."""
    return Descriptor(media_type, Digest.of(content), len(content))
