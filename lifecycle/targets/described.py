"""An image as its own manifest and config describe it."""

from __future__ import annotations

from ...oci.descriptor import Descriptor
from ...oci.errors import InvalidContent
from ...oci.manifest import Manifest, parse_manifest
from ...publish.source import Source, read_document
from ..config import Config
from ..images import Image, Layer


def described(name: str, identifier: str, root: Descriptor, source: Source) -> Image:
    """Return the image whose manifest is `root`; no layer is read.

    Raises:
        NotFound: its manifest or config is absent.
        InvalidContent: it is no image for one platform, or its config and layers do not match.
    """
    manifest = parse_manifest(read_document(source, root), root)
    if not isinstance(manifest, Manifest):
        raise InvalidContent(f"{root.digest} is not an image for one platform")
    what = f"config {manifest.config.digest}"
    config = Config.parse(read_document(source, manifest.config), what)
    if len(config.diff_ids) != len(manifest.layers):
        raise InvalidContent(
            f"{what} has {len(config.diff_ids)} diff_ids, "
            f"the manifest has {len(manifest.layers)} layers"
        )
    layers = map(Layer, config.diff_ids, manifest.layers)
    return Image(name, identifier, root, config, tuple(layers), source)
