"""Images with chosen labels and layers, for tests of phases that read them."""

from __future__ import annotations

from pathlib import Path

from ocistow.lifecycle.caches.image import empty_image
from ocistow.lifecycle.images.assembly import Assembly
from ocistow.lifecycle.images.config import Config, moment
from ocistow.lifecycle.images.image import Layer, Target
from ocistow.lifecycle.layers.packer import LayerPacker
from ocistow.lifecycle.layers.tarball import LayerTar
from ocistow.lifecycle.layers.trees import dir_layer
from ocistow.oci.digest import Digest
from ocistow.publish.compression import Compression


def save_image(target: Target, reference: str, config: Config, *tars: LayerTar) -> list[Digest]:
    """Save an image; return its diffIDs."""
    with (
        target.staging(reference) as staging,
        LayerPacker(staging.blobs, Compression.parse("gzip")) as packer,
    ):
        assembly = Assembly(empty_image(reference, config))
        diff_ids: list[Digest] = []
        for tar in tars:
            packed = packer.pack(tar).result()
            assert packed.blob is not None
            assembly.add(
                Layer(packed.diff_id, packed.blob), packed.ingest or staging.blobs, "a test"
            )
            diff_ids.append(packed.diff_id)
        target.save(assembly.finish(moment(None), with_history=True), [reference])
    return diff_ids


def layer_of(path: Path, files: dict[str, bytes]) -> LayerTar:
    """Write files below a directory, and return the layer that it is."""
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return dir_layer("a layer", path, 0, 0)
