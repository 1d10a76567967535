"""Which inputs go together: what is refused before a phase begins, and what it only warns of.

Source: Go's lifecycle, platform/resolve_inputs.go and platform/experimental_features.go, in whose
order and words; the draft "Export to OCI" for layout mode as `-oci`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from ...oci.errors import InvalidContent, PhaseFailed
from ...oci.reference import Reference
from ..console import Console
from ..golang.flags import decimal
from ..inputs import Inputs
from ..platform_api import Code, Version
from .arguments import EXPERIMENTAL_MODE, Phase

# go-containerregistry, pkg/name, weak validation; `Reference` refuses more
_REFERENCE = re.compile(
    r"(?:(?:localhost|[^/]*[.:][^/]*)/)?+[a-z0-9_\-./]{2,255}"
    r"(?::[A-Za-z0-9_\-.]{1,128})?(?:@sha256:[0-9a-f]{64})?"
)
_MAX_JOBS = 64
_LAYOUT = "export to OCI layout format"


def validated(
    phase: Phase,
    inputs: Inputs,
    deprecated_run_image: str,
    console: Console,
    readable: Callable[[str], bool],
) -> Inputs:
    """Return the inputs with the images that they leave open.

    Args:
        phase: whose inputs they are.
        inputs: as they were asked for.
        deprecated_run_image: what `-image` says.
        console: where warnings go.
        readable: tells whether a registry lets us read an image; not asked in layout mode, nor
            with a daemon.

    Raises:
        PhaseFailed: some exclude each other, one is missing, or a reference is malformed
            or leaves the layout directory.
    """
    try:
        inputs = _with_one_target(phase, inputs, console)
        if phase not in (Phase.DETECT, Phase.BUILD, Phase.RESTORE):
            if not inputs.image:
                raise InvalidContent("image argument is required")
            inputs = _with_images(phase, inputs, deprecated_run_image, console, readable)
        if phase in (Phase.RESTORE, Phase.EXPORT, Phase.CREATE) and not _has_cache(inputs):
            console.warn("No cached data will be used, no cache specified.")
        exports = phase in (Phase.ANALYZE, Phase.EXPORT, Phase.CREATE)
        if exports and inputs.launch_cache_dir and not inputs.daemon:
            console.warn("Ignoring -launch-cache, only intended for use with -daemon")
        if inputs.image:
            _check_references(phase, inputs)
        if phase in (Phase.ANALYZE, Phase.CREATE) and inputs.parallel and not _has_cache(inputs):
            console.warn(
                "Parallel export has been enabled, but it has not taken effect because no cache "
                "has been specified."
            )
    except InvalidContent as error:
        raise PhaseFailed(Code.INVALID_ARGS, f"failed to resolve inputs: {error}") from error
    _guard(phase, inputs, console)
    return _with_epoch(phase, inputs, console)


def _with_one_target(phase: Phase, inputs: Inputs, console: Console) -> Inputs:
    """Refuse more than one target where that is new; the shipped `-layout` beats `-daemon`."""
    if inputs.compression != "gzip":
        from ...publish.compression import Compression

        Compression.parse(inputs.compression)
    if not 0 <= inputs.jobs <= _MAX_JOBS:
        raise InvalidContent(f"-jobs is a number from 0 to {_MAX_JOBS}, not {inputs.jobs}")
    if inputs.push and not inputs.layout:
        raise InvalidContent("-push publishes from an OCI layout: it needs -oci")
    if phase is Phase.PUBLISH:
        targets = [inputs.daemon, inputs.publish]
    elif inputs.by_draft or inputs.publish:
        targets = [inputs.layout, inputs.daemon, inputs.publish]
    elif inputs.layout and inputs.daemon:
        console.warn("Ignoring -daemon, since images are exported to OCI layout format")
        return replace(inputs, daemon=False)
    else:
        return inputs
    if sum(targets) > 1:
        raise InvalidContent("exporting to multiples target is not allowed")
    return inputs


def _with_images(
    phase: Phase,
    inputs: Inputs,
    deprecated_run_image: str,
    console: Console,
    readable: Callable[[str], bool],
) -> Inputs:
    if phase is Phase.PUBLISH:
        return inputs
    given = inputs.run_image if inputs.run_image != inputs.environ.get("CNB_RUN_IMAGE") else ""
    if phase is Phase.EXPORT:
        if given and not inputs.by_draft:
            raise InvalidContent("-run-image is unsupported")
        if deprecated_run_image:
            raise InvalidContent("-image is unsupported")
        if given:
            _check_place(inputs, given)
        from ..images.run_image import analyzed_run_image

        return replace(inputs, run_image=given or analyzed_run_image(inputs, console))
    if deprecated_run_image:  # of the rebaser
        if given:
            raise InvalidContent("supply only one of -run-image or (deprecated) -image")
        return replace(inputs, run_image=deprecated_run_image)
    if phase is Phase.REBASE:
        return inputs
    inputs = replace(inputs, previous_image=inputs.previous_image or inputs.image)
    if inputs.run_image:
        return inputs
    if inputs.by_draft:
        raise InvalidContent("-run-image is required when OCI feature is enabled")
    from ..images.run_image import chosen_run_image

    registry = parse_reference(inputs.image).registry
    return replace(inputs, run_image=chosen_run_image(inputs, registry, console, readable))


def _check_references(phase: Phase, inputs: Inputs) -> None:
    registries = {parse_reference(text).registry for text in inputs.references}
    for text in filter(None, (inputs.build_image, inputs.cache_image)):
        parse_reference(text)
    # what analyzed.toml says in layout mode is a directory and a digest
    run_image = "" if phase is Phase.EXPORT and inputs.layout else inputs.run_image
    for text in filter(None, (inputs.previous_image, run_image)):
        _check_place(inputs, text)
    if len(registries) > 1 and not inputs.daemon:
        raise InvalidContent("writing to multiple registries is unsupported")


def _check_place(inputs: Inputs, text: str) -> None:
    """Refuse what is no reference; in layout mode it may also be a path below the directory."""
    directory = str(inputs.layout_dir)
    if not inputs.layout or not text.startswith(directory):
        parse_reference(text)
    elif ".." in text.split("/"):
        raise InvalidContent(f"{text} is not below {directory}")


def parse_reference(text: str) -> Reference:
    """Read a reference as the platform writes it.

    Raises:
        InvalidContent: it is malformed, or would leave the layout directory.
    """
    if _REFERENCE.fullmatch(text) is None:
        raise InvalidContent(f"could not parse reference: {text}")
    return Reference.parse(text)


def _with_epoch(phase: Phase, inputs: Inputs, console: Console) -> Inputs:
    text = inputs.environ.get("SOURCE_DATE_EPOCH")
    if not text or phase not in (Phase.EXPORT, Phase.CREATE):
        return inputs
    if inputs.platform_api < Version(0, 9):
        return inputs
    epoch = decimal(text)
    if epoch is None:
        console.warn("Ignoring invalid SOURCE_DATE_EPOCH")
    return replace(inputs, source_date_epoch=epoch)


def _has_cache(inputs: Inputs) -> bool:
    return bool(inputs.cache_image or inputs.cache_dir)


def _guard(phase: Phase, inputs: Inputs, console: Console) -> None:
    """Ask the platform's leave for the layout mode of `-layout`, which is experimental."""
    asks = phase in (Phase.ANALYZE, Phase.EXPORT, Phase.CREATE, Phase.REBASE)
    if not asks or not inputs.layout or inputs.by_draft:
        return
    mode = inputs.environ.get(EXPERIMENTAL_MODE) or "error"
    if mode == "error":
        console.error(f"Platform requested experimental feature '{_LAYOUT}'")
        message = f"experimental features are disabled by {EXPERIMENTAL_MODE}={mode}"
        raise PhaseFailed(Code.FAILED, message)
    if mode != "quiet":
        console.warn(f"Platform requested experimental feature '{_LAYOUT}'")
