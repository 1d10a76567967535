"""An image layout as a tar archive: what `oci-archive:` names, and what containerd imports.

Source: image-spec, image-layout.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from ...oci.descriptor import REF_NAME
from ...oci.digest import Digest
from ...oci.image_layout import INDEX, MARKER, MARKER_CONTENT, blob_path
from ...oci.manifest import Index
from ..sink import Image
from .tarstream import Entry, TarStream

NO_DIGESTS = frozenset[Digest]()
IMAGE_NAME = "io.containerd.image.name"  # annotation: the whole name, for containerd and Docker


def layout_tar(
    image: Image,
    annotations: Mapping[str, str],
    without: Collection[Digest] = NO_DIGESTS,
    more: Iterable[Entry] = (),
) -> TarStream:
    """Return the layout of one image, without some of its blobs and with more files.

    What describes comes before what is described, so that the archive can be taken in
    while it arrives: `index.json`, indexes and manifests, and then the other blobs in the
    order in which manifests mention them. In `index.json` the image has these
    annotations besides its own, and no other name.
    """
    kept = {key: value for key, value in image.root.annotations.items() if key != REF_NAME}
    index = Index.of([replace(image.root, annotations={**kept, **annotations})])
    entries = [Entry.of(MARKER, MARKER_CONTENT), Entry.of(INDEX, index.raw), *more]
    entries += [
        Entry.of(blob_path(node.descriptor.digest), node.document.raw)
        for node in reversed(image.nodes)
        if node.document is not None
    ]
    entries += [
        Entry.of(blob_path(descriptor.digest), descriptor)
        for descriptor in image.blobs
        if descriptor.digest not in without
    ]
    return TarStream(entries, image.source)
