"""What layers cost: each once, with the images that have it and what made it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath

from ..oci.descriptor import IMAGE_CONFIGS, Descriptor
from ..oci.digest import Digest
from ..oci.document import Object, inner, inners, parse_object, string
from ..oci.errors import InvalidContent, NotFound
from ..oci.graph import walk
from ..oci.manifest import ImageConfig, Manifest
from ..store.layout import Layout
from ..store.reading import BLOCK
from ..store.store import Store
from .census import Watch

METADATA = "io.buildpacks.lifecycle.metadata"  # the label in which the lifecycle says what is what


@dataclass(slots=True)
class LayerCost:
    """One layer.

    Attributes:
        digest: of the blob.
        size: bytes as the manifests announce them.
        on_disk: bytes that its blob takes once, as the pool has it; 0 if it is absent.
        created_by: what made it, as the first image says that has it; empty if none does.
        images: layouts that mention it, in the order of their names.
    """

    digest: Digest
    size: int
    on_disk: int
    created_by: str
    images: list[PurePosixPath]

    @property
    def is_absent(self) -> bool:
        """Whether no file has it, as in sparse images."""
        return self.on_disk == 0 and self.size > 0


def layers(
    store: Store, names: Collection[PurePosixPath] | None = None, watch: Watch | None = None
) -> list[LayerCost]:
    """Return the layers of all images, or those that the named ones have, the dearest first.

    How many images share a layer is counted among all images of the store in either case. An
    image that cannot be read has no layers here: that is a matter for `verify`.
    """
    found: dict[Digest, LayerCost] = {}
    wanted = set[Digest]()
    for number, name in enumerate(store.names(), 1):
        if watch is not None and number % 500 == 0:
            watch(number, len(found))
        layout = store.layout(name)
        with suppress(NotFound, InvalidContent, PermissionError):
            for manifest, config in _images(layout):
                for place, layer in enumerate(manifest.layers):
                    cost = found.get(layer.digest)
                    if cost is None:
                        taken = _taken(store, layout, layer)
                        cost = LayerCost(layer.digest, layer.size, taken, "", [])
                        found[layer.digest] = cost
                    if not cost.images or cost.images[-1] != name:
                        cost.images.append(name)
                    if config is not None and not cost.created_by:
                        cost.created_by = _made_by(config, place)
                    if names is not None and name in names:
                        wanted.add(layer.digest)
    chosen = [cost for digest, cost in found.items() if names is None or digest in wanted]
    return sorted(chosen, key=lambda cost: (-cost.on_disk, -cost.size, cost.digest))


def _images(layout: Layout) -> Iterator[tuple[Manifest, ImageConfig | None]]:
    for root in layout.index().manifests:
        for node in walk(root, layout.read):
            if isinstance(node.document, Manifest):
                config = None
                if node.document.config.media_type in IMAGE_CONFIGS:
                    with suppress(InvalidContent):
                        config = layout.config(node.document)
                yield node.document, config


def _taken(store: Store, layout: Layout, layer: Descriptor) -> int:
    try:
        return store.blobs.stat(layer.digest).st_blocks * BLOCK
    except NotFound:
        status = layout.own(layer.digest)
        return status.st_blocks * BLOCK if status is not None else 0


def _made_by(config: ImageConfig, place: int) -> str:
    """Return what made the layer at a place, as the lifecycle or the history says."""
    with suppress(InvalidContent):
        document = parse_object(config.raw, "config")
        if place < len(config.diff_ids):
            made = _buildpacks(document).get(str(config.diff_ids[place]))
            if made:
                return made
        history = [
            h for h in inners(document, "history", "config") if h.get("empty_layer") is not True
        ]
        if place < len(history) and len(history) == len(config.diff_ids):
            return string(history[place], "created_by", "history")
    return ""


def _buildpacks(document: Object) -> dict[str, str]:
    """Return what the lifecycle made, by diffID. Source: CNB platform spec, its metadata label."""
    labels = inner(inner(document, "config", "config"), "Labels", "config")
    text = labels.get(METADATA)
    if not isinstance(text, str):
        return {}
    what = f"label {METADATA}"
    metadata = parse_object(text.encode(), what)
    made = {
        string(inner(metadata, part, what), "sha", what): part
        for part in ("config", "launcher", "process-types", "sbom")
    }
    for number, part in enumerate(inners(metadata, "app", what), 1):
        made[string(part, "sha", what)] = f"app, slice {number}"
    for buildpack in inners(metadata, "buildpacks", what):
        layers_ = inner(buildpack, "layers", what)
        for name in layers_:
            made[string(inner(layers_, name, what), "sha", what)] = (
                f"buildpack {string(buildpack, 'key', what)}, layer {name}"
            )
    return {diff_id: text for diff_id, text in made.items() if diff_id}
