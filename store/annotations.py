"""Annotations on the manifest of an image in the store.

Source: image-spec, annotations.md. A digest names the manifest's bytes, so that an annotated
image is another one: what refers to the old digest, such as a signature, is not about it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.document import MAX_DOCUMENT, parse_object, strings, writable
from ..oci.errors import InvalidContent
from ..oci.manifest import Index, Manifest, parse_manifest
from .layout import Layout
from .store import Store


def annotate(
    store: Store, layout: Layout, changes: Mapping[str, str | None]
) -> tuple[Digest, Digest]:
    """Set annotations of an image, remove those that are None, and return both digests.

    The layout has either manifest at every moment, and survives power loss when this returns.
    The other members of the manifest stay as they are; nothing is written if nothing changes.

    Raises:
        NotFound: there is no image, or its manifest is absent.
        InvalidContent: this is not one image for one platform, lacks layers, or would have a
            manifest of over `MAX_DOCUMENT` bytes.
        Busy: another process holds the store.
    """
    with store.lock.held():
        root = _only(layout)
        raw = layout.read(root)
        _check_complete(layout, root, raw)
        new = annotated(raw, changes, f"manifest {root.digest}")
        if new is None:
            return root.digest, root.digest
        digest = Digest.of(new, root.digest.algorithm)
        with store.leases.keeping([digest]):
            store.blobs.add([new], digest)
            given = {key: value for key, value in root.given.items() if key != "data"}
            entry = replace(root, digest=digest, size=len(new), given=given)
            layout.commit(Index.of([entry]))
    return root.digest, digest


def annotated(raw: bytes, changes: Mapping[str, str | None], what: str) -> bytes | None:
    """Return a manifest with other annotations, sorted; None if it has them already.

    Raises:
        InvalidContent: it is malformed, or would have over `MAX_DOCUMENT` bytes.
    """
    document = writable(parse_object(raw, what), what)
    before = strings(document, "annotations", what)
    wanted = {**before, **changes}
    after = {key: value for key, value in sorted(wanted.items()) if value is not None}
    if after == before:
        return None
    changed = {**document, "annotations": after}
    if not after:
        del changed["annotations"]
    new = json.dumps(changed, separators=(",", ":"), ensure_ascii=False).encode()
    if len(new) > MAX_DOCUMENT:
        raise InvalidContent(
            f"{what} would have {len(new)} bytes, at most {MAX_DOCUMENT} are accepted"
        )
    return new


def _only(layout: Layout) -> Descriptor:
    entries = layout.index().manifests
    if len(entries) != 1 or not entries[0].is_manifest:
        raise InvalidContent(f"{layout.name} is not one image for one platform")
    return entries[0]


def _check_complete(layout: Layout, root: Descriptor, raw: bytes) -> None:
    document = parse_manifest(raw, root)
    assert isinstance(document, Manifest)
    there = {descriptor.digest for descriptor in layout.reachable(layout.index())}
    absent = [blob for blob in document.layers if blob.digest not in there]
    if absent:
        raise InvalidContent(f"{layout.name} is sparse: layer {absent[0].digest} is absent")
