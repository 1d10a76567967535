"""What a build leaves for the next one: its layers that are to be cached.

Source: Go's lifecycle, phase/cache.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...oci.digest import Digest
from ...oci.errors import InvalidContent, OcistowError
from ...oci.wording import message_of
from ..console import Console
from ..files.labels import BuildpackLayers, CacheMetadata, LayerMetadata
from ..inputs import Inputs
from ..layers.directories import BuildpackDir, LayerDir
from ..layers.sbom import sbom_dir
from ..layers.tarball import LayerTar
from ..layers.trees import dir_layer
from ..platform_api import Version
from .cache import Cache

CACHE_SBOM = "buildpacksio/lifecycle:cache.sbom"

_SBOM_LAYERS = Version(0, 8)


def fill_cache(
    inputs: Inputs, cache: Cache, buildpacks: Sequence[BuildpackDir], console: Console
) -> CacheMetadata:
    """Write the layers that are to be cached, and return what to commit with them.

    A layer that cannot be cached is told and left out.

    Raises:
        OcistowError, OSError: the cache cannot be written.
    """
    if not cache.exists:
        console.info("Layer cache not found")
    old = cache.metadata()
    known = {(b.key, name): layer for b in old.buildpacks for name, layer in b.layers.items()}
    found: list[BuildpackLayers] = []
    for left in buildpacks:
        kept: dict[str, LayerMetadata] = {}
        for layer in left.layers:
            if layer.metadata is None or not layer.cache:
                continue
            likely = known.get((left.buildpack.id, layer.name), LayerMetadata()).sha
            if (diff_id := _cached(inputs, cache, layer, likely, console)) is not None:
                kept[layer.name] = replace(layer.metadata, sha=str(diff_id))
        found.append(BuildpackLayers(left.buildpack.id, left.buildpack.version, kept))
    sbom = ""
    if inputs.platform_api >= _SBOM_LAYERS and (path := sbom_dir(inputs.layers_dir, "cache")):
        console.debug(f"Found SBOM of type cache for at {path}")
        tar = dir_layer(CACHE_SBOM, path, inputs.uid, inputs.gid)
        sbom = str(_added(cache, tar, old.sbom, console))
    return CacheMetadata(sbom, tuple(found))


def _cached(
    inputs: Inputs, cache: Cache, layer: LayerDir, likely: str, console: Console
) -> Digest | None:
    """Return the diffID of the layer, which the cache will have; None if it cannot."""
    if not layer.present:
        console.warn(f"Failed to cache layer '{layer.identifier}' because it has no contents")
        return None
    try:
        tar = dir_layer(layer.identifier, layer.path, inputs.uid, inputs.gid)
        return _added(cache, tar, likely, console)
    except (OcistowError, OSError) as error:
        console.warn(f"Failed to cache layer '{layer.identifier}': {message_of(error)}")
        return None


def _added(cache: Cache, tar: LayerTar, likely: str, console: Console) -> Digest:
    cached = cache.add(tar, _digest(likely))
    if cached.fault:
        console.warn(f"Skipping reuse for layer {tar.id}: {cached.fault}")
    console.info(f"{'Reusing' if cached.reused else 'Adding'} cache layer '{tar.id}'")
    console.debug(f"Layer '{tar.id}' SHA: {cached.diff_id}")
    return cached.diff_id


def _digest(text: str) -> Digest | None:
    try:
        return Digest.parse(text)
    except InvalidContent:
        return None
