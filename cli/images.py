"""What `ls` and `inspect` show of an image: read once from its layout, then plain values."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ..oci.descriptor import IMAGE_CONFIGS, Descriptor
from ..oci.digest import Digest
from ..oci.errors import NotFound
from ..oci.graph import walk
from ..oci.manifest import ImageConfig, Manifest
from ..oci.platform import Platform
from ..store.layout import Layout


@dataclass(frozen=True, slots=True)
class LayerView:
    """One layer; `diff_id` is None for what is no layer of a file system."""

    descriptor: Descriptor
    diff_id: Digest | None
    present: bool | None  # None if nobody looked


@dataclass(frozen=True, slots=True)
class ImageView:
    """One manifest; `config` is None for artifacts, whose config is something else."""

    descriptor: Descriptor
    manifest: Manifest
    config: ImageConfig | None
    layers: tuple[LayerView, ...]

    @property
    def platform(self) -> Platform | None:
        """What the image runs on, as its config says, else as its index says."""
        if self.config is not None and self.config.platform.architecture:
            return self.config.platform
        return self.descriptor.platform

    @property
    def size(self) -> int:
        """Bytes of manifest, config and layers, as announced."""
        parts = {self.descriptor, self.manifest.config, *self.manifest.layers}
        return sum(part.size for part in parts)


@dataclass(frozen=True, slots=True)
class RootView:
    """One entry of an `index.json`: an image, or an index of several."""

    descriptor: Descriptor
    images: tuple[ImageView, ...]
    size: int  # bytes of everything below it, each digest once


def read_roots(layout: Layout, *, look: bool = True) -> tuple[RootView, ...]:
    """Return what a layout consists of; `look` for its layers, too.

    Raises:
        NotFound: there is no layout, or a manifest or config is absent.
        InvalidContent: something is malformed.
    """
    return tuple(_root(layout, root, look=look) for root in layout.index().manifests)


def _root(layout: Layout, root: Descriptor, *, look: bool) -> RootView:
    images: list[ImageView] = []
    size = 0
    for node in walk(root, layout.read):
        size += node.descriptor.size
        if isinstance(node.document, Manifest):
            images.append(_image(layout, node.descriptor, node.document, look=look))
    return RootView(root, tuple(images), size)


def _image(layout: Layout, descriptor: Descriptor, manifest: Manifest, *, look: bool) -> ImageView:
    config = None
    if manifest.config.media_type in IMAGE_CONFIGS:
        config = layout.config(manifest)
    diff_ids: list[Digest | None] = [*config.diff_ids] if config else []
    diff_ids += [None] * (len(manifest.layers) - len(diff_ids))
    layers = tuple(
        LayerView(layer, diff_id, _has(layout, layer.digest) if look else None)
        for layer, diff_id in zip(manifest.layers, diff_ids, strict=False)
    )
    return ImageView(descriptor, manifest, config, layers)


def _has(layout: Layout, digest: Digest) -> bool:
    try:
        file = layout.open(digest)
    except NotFound:
        return False
    os.close(file)
    return True
