"""An archive whose kind shows only in what it holds."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from ...oci.descriptor import OCI_LAYER
from ...oci.errors import InvalidContent, NotFound
from ...oci.graph import walk
from ...oci.image_layout import BLOBS, INDEX
from ...oci.platform import Platform
from ..recognition import Recognition
from ..source import Source, read_document
from .archive import Archive
from .docker import MANIFEST, DockerArchiveSource
from .oci import OciArchiveSource
from .spool import Packs, unless_known


def outside_layouts(recognition: Recognition) -> Packs:
    """Return what compresses as `unless_known` does, but no blob of what may be a layout."""
    compressed = unless_known(recognition)
    return lambda name, size: not name.startswith(f"{BLOBS}/") and compressed(name, size)


@contextmanager
def any_archive(
    archive: Archive, recognition: Recognition, platform: Platform | None
) -> Generator[Source]:
    """Open the only image of an image layout, or of what `docker save` wrote.

    Since Docker 25 `docker save` writes both in one, and so does BuildKit. Such an archive
    is the layout, whose digests are those of a registry, unless layers in it are not
    compressed: then the layout is one that Docker made up on the way.

    Raises:
        InvalidContent: it is neither.
    """
    as_layout, as_saved = _has(archive, INDEX), _has(archive, MANIFEST)
    if not as_layout and not as_saved:
        raise InvalidContent(f"{archive.name} has neither {INDEX} nor {MANIFEST}")
    layout = OciArchiveSource(archive, recognition, platform=platform)
    if as_layout and not (as_saved and _has_plain_layers(layout)):
        yield layout
        return
    with DockerArchiveSource(archive, recognition) as source:
        yield source


def _has(archive: Archive, name: str) -> bool:
    try:
        archive.find(name)
    except NotFound:
        return False
    return True


def _has_plain_layers(source: Source) -> bool:
    nodes = walk(source.resolve(), lambda descriptor: read_document(source, descriptor))
    return any(node.descriptor.media_type == OCI_LAYER for node in nodes)
