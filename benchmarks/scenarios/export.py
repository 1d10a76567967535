"""Write an image as go-containerregistry does: export.py SOURCE TARGET BASE LAYERS

SOURCE is a layout, of whose image the lowest LAYERS layers are copied from the layout BASE,
as a build finds its run image.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ocistow.oci.digest import Digest
from ocistow.oci.manifest import Index, Manifest, parse_manifest
from ocistow.testing.layout_writer import Image, Layer, write_image


def main() -> None:
    source, target, base = map(Path, sys.argv[1:4])
    count = int(sys.argv[4])
    (root,) = Index.parse((source / "index.json").read_bytes(), str(source)).manifests
    raw = blob(source, root.digest).read_bytes()
    manifest = parse_manifest(raw, root)
    assert isinstance(manifest, Manifest)
    digests = [layer.digest for layer in manifest.layers]
    layers = [
        *(Layer(digest, source=blob(base, digest)) for digest in digests[:count]),
        *(Layer(digest, content=blob(source, digest).read_bytes()) for digest in digests[count:]),
    ]
    config = blob(source, manifest.config.digest).read_bytes()
    write_image(target, Image(layers, config, raw))


def blob(layout: Path, digest: Digest) -> Path:
    return layout / "blobs" / digest.algorithm / digest.encoded


if __name__ == "__main__":
    main()
