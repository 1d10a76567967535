"""The analyzer: which image the app was last time, and what it is going to run on.

Source: buildpacks/spec, platform.md, "Analyzer"; Go's lifecycle, phase/analyzer.go.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager

from ..oci.digest import Digest
from ..oci.errors import InvalidContent, NotFound, OcistowError, PhaseFailed
from ..oci.wording import message_of
from ..publish.sink import host_platform
from ..publish.source import Stream
from .caches.directory import DirectoryCache
from .console import Console
from .files.analyzed import Analyzed, AnalyzedRunImage, write_analyzed
from .files.analyzed import Target as BuildTarget
from .files.labels import LIFECYCLE_METADATA, LifecycleMetadata
from .images.config import Config
from .images.image import Image, Target
from .images.layer import has_layer, layer_stream
from .images.run_image import not_found
from .inputs import Inputs
from .layers.extract import Misplaced, extract
from .layers.sbom import SBOM
from .platform_api import Code, Version
from .targets import open_registries

_SBOM = Version(0, 8)
_TARGETS = Version(0, 12)


def analyze(inputs: Inputs, target: Target, console: Console) -> Analyzed:
    """Write analyzed.toml, and put back the SBOMs that the previous image has.

    A previous image that is absent, damaged, or was not made by a lifecycle, is none. A run image
    that is absent is no error, since an image extension may choose another one; but it is in
    layout mode, where there are no extensions and the exporter would fail.

    Raises:
        PhaseFailed: an image may not be read or written, or the run image is not there.
        InvalidContent, OSError: the run image or an SBOM cannot be used, or the disk refused.
    """
    with ExitStack() as stack:
        with _initializing():
            _check_access(inputs, target)
        with _initializing("getting previous image: "):
            previous = _previous(inputs, target, stack, console)
        with _initializing("getting run image: "):
            run_image = _run_image(inputs, target, stack)
        with console.timer("Analyzer"):
            metadata = LifecycleMetadata() if previous is None else _metadata(previous)
            reference = "" if previous is None or metadata is None else previous.identifier
            metadata = metadata or LifecycleMetadata()
            if previous is not None and metadata.sbom:
                _restore_sboms(previous, metadata.sbom, inputs, console)
            if inputs.run_image:
                _tell(inputs.run_image, run_image, target, console)
            analyzed = Analyzed(reference, "", _analyzed(run_image, inputs), metadata)
    try:
        write_analyzed(inputs.analyzed_path, analyzed, console)
    except OSError as error:
        message = f"failed to write analyzed file: {message_of(error)}"
        raise PhaseFailed(Code.FAILED, message) from error
    return analyzed


def build_target(config: Config) -> BuildTarget:
    """Return what an image is for, as its config and its labels say.

    Raises:
        InvalidContent: it names no operating system.
    """
    if not config.os:
        raise InvalidContent("failed to find OS in run image config")
    return config.target


def _check_access(inputs: Inputs, target: Target) -> None:
    """See that the phases to come will not fail for want of leave; a target may not ask for any."""
    if inputs.cache_image and (inputs.layout or inputs.daemon):
        with open_registries(inputs) as registries:
            _check_writable(registries, inputs.cache_image)
    elif inputs.cache_image:
        _check_writable(target, inputs.cache_image)
    try:
        target.check_access([*filter(None, (inputs.previous_image, inputs.run_image))], [])
    except OcistowError as error:
        raise InvalidContent(f"validating registry read access: {error}") from error
    _check_writable(target, *inputs.references)


def _check_writable(target: Target, *references: str) -> None:
    try:
        target.check_access([], references)
    except OcistowError as error:
        raise InvalidContent(f"validating registry write access: {error}") from error


def _previous(inputs: Inputs, target: Target, stack: ExitStack, console: Console) -> Image | None:
    """Return the image of the last build, unless it is damaged or its registry lost some of it.

    Buildpacks would count on layers that the exporter cannot have.
    """
    if not inputs.previous_image:
        return None
    try:
        image = stack.enter_context(target.find(inputs.previous_image))
        if image is None or inputs.daemon or inputs.layout:
            _tell(inputs.previous_image, image, target, console)
            return image
        lost = next((layer for layer in image.layers if not has_layer(image, layer)), None)
        if lost is None:
            _tell(inputs.previous_image, image, target, console)
            return image
        reason = f"layer {lost.blob.digest} is missing"
    except InvalidContent as error:
        reason = str(error)
    console.info(f'Ignoring image "{target.name(inputs.previous_image)}" because it was corrupt')
    console.debug(reason)
    return None


def _run_image(inputs: Inputs, target: Target, stack: ExitStack) -> Image | None:
    if not inputs.run_image:
        return None
    image = stack.enter_context(target.find(inputs.run_image))
    if image is None and inputs.layout:
        raise PhaseFailed(Code.ANALYZE, not_found(inputs.run_image, target))
    return image


def _tell(reference: str, image: Image | None, target: Target, console: Console) -> None:
    if image is None:
        console.info(f'Image with name "{target.name(reference)}" not found')
    else:
        console.debug(f'Found image with identifier "{image.identifier}"')


def _metadata(image: Image) -> LifecycleMetadata | None:
    """Return what the image's label says; None if that is not understood."""
    label = image.config.labels.get(LIFECYCLE_METADATA, "")
    try:
        return LifecycleMetadata.parse(label.encode()) if label else LifecycleMetadata()
    except (InvalidContent, UnicodeEncodeError):
        return None


def _restore_sboms(image: Image, sha: str, inputs: Inputs, console: Console) -> None:
    if inputs.platform_api < _SBOM or inputs.skip_layers:
        return
    console.info("Restoring data for SBOM from previous image")
    console.debug(f'Retrieving previous image SBOM layer for "{sha}"')
    try:
        with _sbom_layer(image, Digest.parse(sha), inputs) as tar:
            extract(tar, inputs.layers_dir, SBOM, "launch")
    except Misplaced as error:  # it would be of no use there
        console.warn(f"Skipping restore for SBOM of an image for other directories: {error}")
    except (InvalidContent, NotFound) as error:
        raise InvalidContent(f"retrieving launch SBOM layer: {error}") from error


@contextmanager
def _sbom_layer(image: Image, diff_id: Digest, inputs: Inputs) -> Generator[Stream]:
    """Open the layer in the launch cache, if it is there: a daemon gives images as a whole."""
    if inputs.daemon and inputs.launch_cache_dir is not None:
        with DirectoryCache(inputs.launch_cache_dir) as cache, ExitStack() as stack:
            try:
                stream = stack.enter_context(cache.open(diff_id))
            except InvalidContent:
                stream = stack.enter_context(layer_stream(image, diff_id))
            yield stream
    else:
        with layer_stream(image, diff_id) as stream:
            yield stream


def _analyzed(image: Image | None, inputs: Inputs) -> AnalyzedRunImage:
    """Return what analyzed.toml says of the run image.

    Its name is the one that was given, also in layout mode: run.toml has it by that name, and a
    directory is part of the identifier.
    """
    reference = image.identifier if image else ""
    if inputs.platform_api < _TARGETS or not inputs.run_image:
        return AnalyzedRunImage(reference)
    config = image.config if image else Config(host_platform().architecture)
    return AnalyzedRunImage(reference, inputs.run_image, target=build_target(config))


@contextmanager
def _initializing(what: str = "") -> Generator[None]:
    try:
        yield
    except PhaseFailed:
        raise
    except OcistowError as error:
        message = f"failed to initialize analyzer: {what}{error}"
        raise PhaseFailed(Code.ANALYZE, message) from error
