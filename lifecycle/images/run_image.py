"""Which image the app runs on, where `-run-image` does not say, and where it was looked for.

Source: Go's lifecycle, platform/run_image.go and platform/resolve_inputs.go; the draft
"Export to OCI".
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, runtime_checkable

from ...oci.errors import InvalidContent
from ...oci.reference import Reference
from ..console import Console
from ..files.analyzed import read_analyzed
from ..files.labels import StackRunImage
from ..files.run import read_run, read_stack
from ..inputs import Inputs
from ..platform_api import Version
from .image import Target


def chosen_run_image(
    inputs: Inputs, registry: str, console: Console, readable: Callable[[str], bool]
) -> str:
    """Return the best mirror of what run.toml, or below API 0.12 stack.toml, names first.

    Raises:
        InvalidContent: there is none, or the file is malformed.
    """
    if inputs.platform_api < Version(0, 12):
        return best_mirror(read_stack(inputs.stack_path, console), registry, readable)
    images = read_run(inputs.run_path, console)
    if not images:
        raise InvalidContent("-run-image is required when there is no run metadata available")
    return best_mirror(images[0], registry, readable)


def best_mirror(image: StackRunImage, registry: str, readable: Callable[[str], bool]) -> str:
    """Return which of an image and its mirrors is taken for an app image on this registry.

    That is the first one on the same registry, otherwise the first one, that may be read.

    Raises:
        InvalidContent: none may, or the image has no name.
    """
    if not image.image:
        raise InvalidContent("missing run image metadata (-run-image)")
    names = (image.image, *image.mirrors)
    near = [name for name in names if _registry(name) == registry]
    for name in (*near, *names):
        if readable(name):
            return name
    raise InvalidContent("failed to find accessible run image")


def analyzed_run_image(inputs: Inputs, console: Console) -> str:
    """Return what analyzed.toml calls the run image.

    Raises:
        InvalidContent: it does not say, or is malformed.
    """
    run_image = read_analyzed(inputs.analyzed_path, console).run_image
    if run_image is None or not run_image.reference:
        raise InvalidContent("run image not found in analyzed metadata")
    return run_image.reference


def _registry(name: str) -> str:
    with suppress(InvalidContent):
        return Reference.parse(name).registry
    return ""


def not_found(reference: str, target: Target) -> str:
    """Return the draft's words for a run image that is not among the layouts."""
    places = target.places(reference) if isinstance(target, _Layouts) else (target.name(reference),)
    return f"the run-image could not be found at path: {' or '.join(dict.fromkeys(places))}"


@runtime_checkable
class _Layouts(Protocol):
    def places(self, reference: str) -> tuple[str, str]: ...
