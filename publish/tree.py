"""The images of a directory full of layouts, and what they are called.

Of a layout's images, whoever wrote it may have said the name in three ways: as a whole reference in
`org.opencontainers.image.ref.name`; by the path, as pack and the lifecycle do
(`registry/repository/tag`); or as a registry such as zot does, whose repository is the path and
whose tag is the annotation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..oci.descriptor import REF_NAME, Descriptor
from ..oci.errors import InvalidContent, OcistowError
from ..oci.reference import Reference, is_registry
from ..store.sharing.foreign import Skip, find_layouts
from .layout import LayoutSource


@dataclass(frozen=True, slots=True)
class Found:
    """An image below a directory.

    Attributes:
        layout: the directory it is in.
        position: of its entry in the index there; None if that could not be read.
        name: what to call it; None if nothing says that, or the index could not be read.
        error: why not.
    """

    layout: Path
    position: int | None
    name: Reference | None
    error: OcistowError | OSError | None = None

    @property
    def source(self) -> str:
        """The word for `add` that means this image."""
        return f"oci:{self.layout}" + ("" if self.position is None else f":@{self.position}")


def images_below(directory: Path, skip: Skip | None = None) -> Iterator[Found]:
    """Yield every image of every layout at and below a directory.

    Raises:
        OSError: the directory itself cannot be read.
    """
    for layout in find_layouts(directory, skip):
        if not layout.is_image_layout:
            continue
        try:
            entries = LayoutSource(layout.path).index().manifests
        except (OcistowError, OSError) as error:
            yield Found(layout.path, None, None, error)
            continue
        for position, entry in enumerate(entries):
            try:
                name = _name(layout.inside, entry, alone=len(entries) == 1)
            except InvalidContent as error:
                yield Found(layout.path, position, None, error)
            else:
                yield Found(layout.path, position, name)


def _name(inside: PurePosixPath, entry: Descriptor, *, alone: bool) -> Reference:
    called = entry.annotations.get(REF_NAME, "")
    if "/" in called:
        return Reference.parse(called)
    if alone and len(inside.parts) > 2 and is_registry(inside.parts[0]):
        by_path = Reference.from_path(inside)
        if by_path is not None and called in ("", "latest", by_path.identifier):
            return by_path
    if inside.parts and called:
        return Reference.parse(f"{inside}:{called}")
    said = f"is called {called[:200]!r}" if called else "has no name"
    raise InvalidContent(
        f"the image {said}, and its path is not REGISTRY/REPOSITORY/TAG: {str(inside)[:200]!r}"
    )
