"""Images of the store as plain layouts elsewhere, for tools that know no store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..oci.descriptor import Descriptor
from ..oci.errors import InvalidContent
from ..oci.image_layout import BLOBS, INDEX, MARKER
from ..oci.platform import Platform
from ..oci.reference import Reference
from ..store.disk import Disk
from ..store.layout import Layout
from ..store.links import Links, Way
from ..store.store import Store
from .access import JOBS
from .copy import Progress, copy
from .link_sink import LinkSink, Place
from .remote import store_source


@dataclass(frozen=True, slots=True)
class Linked:
    """What became of one image.

    Attributes:
        name: its layout in the store.
        place: its layout outside.
        root: its manifest or index.
        ways: how many blobs were given their names, and their bytes, by how that was done;
            None stands for those that were there.
        obstacles: why better ways were not taken.
    """

    name: PurePosixPath
    place: Place
    root: Descriptor
    ways: Mapping[Way | None, tuple[int, int]]
    obstacles: Mapping[Way, str]


def places(
    names: Sequence[PurePosixPath], directory: Path, *, flat: bool = False, shared: bool = False
) -> list[Place]:
    """Return where images get their layouts.

    Args:
        names: of their layouts in the store.
        directory: that has all of them, one below the other as in the store.
        flat: whether it is itself the layout, which has all images: by tag, if they are all of
            one repository, and else by whole reference.
        shared: whether `blobs` in the directory has the blobs of all layouts.

    Raises:
        InvalidContent: the directory is a layout, but not to be one, or the other way round.
    """
    is_layout = any((directory / name).is_file() for name in (INDEX, MARKER))
    if is_layout and not flat:
        raise InvalidContent(f"{directory} is an image layout, and none lies in another")
    blobs = directory / BLOBS if shared else None
    if not flat:
        return [Place(directory, name, _tag(name), blobs) for name in names]
    references = [Reference.from_path(name) for name in names]
    of_one = len({(r.registry, r.repository) if r else None for r in references}) == 1
    if of_one and None not in references:
        return [Place(directory, name=_tag(name)) for name in names]
    return [
        Place(directory, name=str(reference or name))
        for name, reference in zip(names, references, strict=True)
    ]


def link(
    store: Store,
    layout: Layout,
    place: Place,
    links: Links,
    *,
    platform: Platform | None = None,
    jobs: int = JOBS,
    progress: Progress | None = None,
    disk: Disk | None = None,
) -> Linked:
    """Make an image of the store a plain layout at a place, or bring that up to date.

    The layout is whole, or not there; what was there stays until the image is. After a crash
    at any moment this can be done again. When it fails, and nothing was there, nothing is left
    but blobs that were finished, which need not be copied again.

    Raises:
        NotFound: the image, or a part of it, is absent.
        InvalidContent: a part is malformed; or the place has something else.
        OSError: no way of `links` is possible; or the disk is full, or the like.
        Busy: another process keeps changing the layout.
    """
    if place.path.resolve().is_relative_to(store.path.resolve()):
        raise InvalidContent(f"{place.path} lies in the store")
    sink = LinkSink(place, links, disk)
    try:
        with store_source(store, layout, platform) as source:
            copied = copy(source, sink, jobs=jobs, progress=progress, leases=store.leases)
    except BaseException:
        sink.discard()
        raise
    return Linked(layout.name, place, copied.root, sink.ways, dict(links.obstacles))


def _tag(name: PurePosixPath) -> str:
    reference = Reference.from_path(name)
    return reference.tag or "" if reference is not None else ""
