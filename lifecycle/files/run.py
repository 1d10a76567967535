"""run.toml and stack.toml: which run images there are, and where else they are kept.

Source: buildpacks/spec, platform.md, "run.toml"; before API 0.12 "stack.toml".
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ...oci.document import Object, inner, inners
from ...oci.errors import InvalidContent
from ...oci.reference import Reference
from ..console import Console
from .document import read_file
from .labels import StackRunImage


def read_run(path: Path, console: Console) -> tuple[StackRunImage, ...]:
    """Read the run images of run.toml; without that file there are none.

    Raises:
        InvalidContent: it cannot be read or understood.
    """
    images = read_file(path, "run", _images)
    if images is None:
        console.info(f'No run metadata found at path "{path}"')
        return ()
    return images


def read_stack(path: Path, console: Console) -> StackRunImage:
    """Read the run image of stack.toml; without that file it has no name.

    Raises:
        InvalidContent: it cannot be read or understood.
    """
    image = read_file(path, "stack", _stack)
    if image is None:
        console.info(f'No stack metadata found at path "{path}"')
        return StackRunImage()
    return image


def run_image_of(name: str, images: Iterable[StackRunImage]) -> StackRunImage | None:
    """Return the first image that has this name, or a mirror of this name.

    Names that mean the same repository and tag are the same; digests do not count.
    """
    wanted = without_digest(name)
    for image in images:
        if wanted in map(without_digest, (image.image, *image.mirrors)):
            return image
    return None


def without_digest(name: str) -> str:
    """Return the full name of a tag; what is no reference stays as it is.

    >>> without_digest("busybox@sha256:00")
    'index.docker.io/library/busybox:latest'
    """
    try:
        return str(Reference.parse(name.split("@")[0] if "@sha256:" in name else name))
    except InvalidContent:
        return name


def _images(document: Object, what: str) -> tuple[StackRunImage, ...]:
    images = inners(document, "images", what)
    return tuple(StackRunImage.from_document(image, what) for image in images)


def _stack(document: Object, what: str) -> StackRunImage:
    return StackRunImage.from_document(inner(document, "run-image", what), what)
