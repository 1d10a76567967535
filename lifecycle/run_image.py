"""Which image the app runs on, where `-run-image` does not say.

Source: Go's lifecycle, platform/run_image.go and platform/resolve_inputs.go.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from ..oci.document import MAX_DOCUMENT, Object, as_object, members, string
from ..oci.errors import InvalidContent
from ..oci.reference import Reference
from .console import Console
from .flags import quote
from .inputs import Inputs
from .platform_api import Version


def chosen_run_image(
    inputs: Inputs, registry: str, console: Console, readable: Callable[[str], bool]
) -> str:
    """Return the run image that run.toml, or below API 0.12 stack.toml, names first.

    Of it and its mirrors that is the one on the `registry` of the app image, otherwise the first
    one that may be read.

    Raises:
        InvalidContent: there is none, or the file is malformed.
    """
    if inputs.platform_api < Version(0, 12):
        stack = _read(inputs.stack_path, "stack", console) or {}
        image = as_object(stack.get("run-image", {}), "run-image of stack.toml")
    else:
        run = _read(inputs.run_path, "run", console) or {}
        images = members(run.get("images"), "images of run.toml")
        if not images:
            message = "-run-image is required when there is no run metadata available"
            raise InvalidContent(message)
        image = as_object(images[0], "an image of run.toml")
    mirrors = [str(mirror) for mirror in members(image.get("mirrors"), "mirrors of a run image")]
    return best_mirror([string(image, "image", "a run image"), *mirrors], registry, readable)


def best_mirror(images: Sequence[str], registry: str, readable: Callable[[str], bool]) -> str:
    """Return the first of an image and its mirrors that may be read, best on this registry.

    Raises:
        InvalidContent: none may, or the image has no name.
    """
    if not images[0]:
        raise InvalidContent("missing run image metadata (-run-image)")
    near = [image for image in images if _registry(image) == registry]
    for image in (*near, *images):
        if readable(image):
            return image
    raise InvalidContent("failed to find accessible run image")


def analyzed_run_image(inputs: Inputs, console: Console) -> str:
    """Return what analyzed.toml calls the run image.

    Raises:
        InvalidContent: it does not say, or is malformed.
    """
    document = _read(inputs.analyzed_path, "analyzed", console) or {}
    run_image = as_object(document.get("run-image", {}), "run-image of analyzed.toml")
    reference = string(run_image, "reference", "run-image of analyzed.toml")
    if not reference:
        raise InvalidContent("run image not found in analyzed metadata")
    return reference


def _registry(image: str) -> str:
    with suppress(InvalidContent):
        return Reference.parse(image).registry
    return ""


def _read(path: Path, what: str, console: Console) -> Object | None:
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_DOCUMENT)
    except FileNotFoundError:
        say = console.warn if what == "analyzed" else console.info
        say(f"No {what} metadata found at path {quote(str(path))}")
        return None
    try:
        return tomllib.loads(raw.decode())
    except ValueError as error:
        raise InvalidContent(f"failed to read {what} file: {error}") from error
