"""What an image layout is made of. Source: image-spec, image-layout.md."""

from __future__ import annotations

from .digest import Digest

BLOBS = "blobs"
INDEX = "index.json"
MARKER = "oci-layout"
LAYOUT_VERSION = "1.0.0"
MARKER_CONTENT = f'{{"imageLayoutVersion":"{LAYOUT_VERSION}"}}\n'.encode()


def blob_path(digest: Digest) -> str:
    """Return where a layout has a blob."""
    return f"{BLOBS}/{digest.algorithm}/{digest.encoded}"
