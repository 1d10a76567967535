"""The exporter: makes an image of what the build left, and tells what became of it.

Source: buildpacks/spec, platform.md, "Exporter"; Go's lifecycle, cmd/lifecycle/exporter.go and
phase/exporter.go.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ..oci.document import inners
from ..oci.errors import InvalidContent, OcistowError, PhaseFailed
from ..oci.wording import message_of
from .caches.directory import DirectoryCache
from .caches.export import fill_cache
from .caches.opening import open_cache
from .console import Console
from .failures import failing, naming
from .files.analyzed import Analyzed, AnalyzedRunImage, read_analyzed
from .files.document import read_toml
from .files.group import Group, GroupElement, read_group, supported_api
from .files.labels import (
    BUILD_METADATA,
    EXEC_ENV,
    LIFECYCLE_METADATA,
    PROJECT_METADATA,
    RunImageMetadata,
    StackRunImage,
)
from .files.metadata import BillEntry, BuildMetadata, read_build_metadata
from .files.project import ProjectMetadata, read_project_metadata
from .files.report import Report, write_report
from .files.run import read_run, read_stack, run_image_of
from .images.app import Made, export_image
from .images.artifacts import attach, check_names, collect
from .images.config import Config
from .images.image import Image, Saved, Target
from .images.launcher import launcher_metadata
from .images.records import write_records
from .images.settings import configured, default_process
from .inputs import Inputs
from .layers.contents import metadata, parts
from .layers.directories import BuildpackDir, read_buildpack_dir
from .layers.sbom import copy_lifecycle_sboms
from .platform_api import Code, Version

_NO_BILLS = Version(0, 9)
_OWN_SBOMS = Version(0, 11)
_RUN_IMAGES = Version(0, 12)
_EXEC_ENV = Version(0, 15)


def export(
    inputs: Inputs, target: Target, console: Console, analyzed: Analyzed | None = None
) -> Saved:
    """Save the image of a build under all of its names, and after it the report and the cache.

    What the analyzer found is read from its file unless `analyzed` says it. A cache that cannot
    be written is told, and no failure. Unless the image has all of its names, and what buildpacks
    want beside it, there is no report.

    Raises:
        PhaseFailed: the image could not be made, or not be given all of its names.
    """
    with failing(Code.FAILED):
        if analyzed is None:
            analyzed = _analyzed(inputs, console)
        group = read_group(inputs.group_path)
        _refuse_extensions(analyzed, group)
        for element in group.buildpacks:
            supported_api(element, element.api)
    with ExitStack() as resources:
        with failing(Code.FAILED):
            cache = resources.enter_context(open_cache(inputs))
            project = read_project_metadata(inputs.project_metadata_path, console)
        beside = resources.enter_context(ThreadPoolExecutor(1, "cache"))
        with failing(Code.EXPORT, "export"):
            left = _left(inputs, group, console)
        with failing(Code.ARTIFACTS, "export artifacts"):
            artifacts = collect(inputs.layers_dir, group.buildpacks, inputs.references)
            check_names(artifacts, inputs.image, target)
        build = _Build(analyzed, left, project)
        filling = None
        if inputs.parallel and cache is not None:
            filling = beside.submit(fill_cache, inputs, cache, left, console)
        with failing(Code.EXPORT, "export"), console.timer("Exporter"):
            saved, run_image = _export(inputs, target, console, build)
        with failing(Code.ARTIFACTS, "export artifacts"):
            attach(artifacts, inputs.image, target, console)
        with failing(Code.EXPORT, "write export report"):
            _report(inputs, target, saved, run_image, left)
        if cache is not None:
            with _telling("cache", console), console.timer("Cache"):
                filled = filling.result() if filling else fill_cache(inputs, cache, left, console)
                cache.commit(filled)
    return saved


@dataclass(frozen=True, slots=True)
class _Build:
    """What the phases before found out, and left."""

    analyzed: Analyzed
    left: Sequence[BuildpackDir]
    project: ProjectMetadata


def _analyzed(inputs: Inputs, console: Console) -> Analyzed:
    """Return what the analyzer found out; the draft lets the exporter be told another run image."""
    analyzed = read_analyzed(inputs.analyzed_path, console)
    if not inputs.run_image:
        return analyzed
    found = analyzed.run_image or AnalyzedRunImage()
    return replace(analyzed, run_image=replace(found, reference=inputs.run_image))


def _left(inputs: Inputs, group: Group, console: Console) -> list[BuildpackDir]:
    found: list[BuildpackDir] = []
    for element in group.buildpacks:
        with naming(f"reading layers for buildpack '{element.id}'"):
            found.append(read_buildpack_dir(inputs.layers_dir, element, console.debug))
    return found


def _export(
    inputs: Inputs, target: Target, console: Console, build: _Build
) -> tuple[Saved, RunImageMetadata]:
    """Save the image, and return what it knows of its run image."""
    if inputs.platform_api >= _OWN_SBOMS:
        with naming("failed to copy buildpacksio SBOMs"):
            copy_lifecycle_sboms(inputs.layers_dir, inputs.launcher_sbom_dir, console.warn)
    with naming("read build metadata"):
        path = inputs.layers_dir / "config" / "metadata.toml"
        built = read_build_metadata(path, inputs.platform_api)
    with naming("determining entrypoint"):
        process = default_process(built, inputs.process_type)
    with ExitStack() as images:
        base, previous = _images(inputs, target, console, build.analyzed, images)
        if base.top_layer is None:
            raise InvalidContent("get run image top layer SHA: image has no layers")
        stack = _run_image(inputs, build.analyzed, built, console)
        named = stack if inputs.platform_api >= _RUN_IMAGES else StackRunImage()
        run_image = RunImageMetadata(
            str(base.top_layer), base.identifier, named.image, named.mirrors
        )

        def configure(config: Config, layers: Sequence[Made]) -> Config:
            made = metadata([(layer.part, layer.diff_id) for layer in layers], build.left)
            made = replace(made, run_image=run_image, stack=stack)
            labels = [
                (LIFECYCLE_METADATA, made.dump().decode()),
                (BUILD_METADATA, _build_label(inputs, built)),
                (PROJECT_METADATA, build.project.label().decode()),
                *((label.key, label.value) for label in built.labels),
            ]
            if inputs.platform_api >= _EXEC_ENV and inputs.exec_env:
                labels.append((EXEC_ENV, inputs.exec_env))
            return configured(config, inputs, process, labels, console)

        wanted = parts(inputs, build.left, built, build.analyzed.metadata)
        saved, layers = export_image(inputs, target, base, previous, wanted, configure, console)
    if target.keeps_identifier and inputs.launch_cache_dir is not None:
        _save_launch_cache(inputs.launch_cache_dir, layers, console)
    return saved, run_image


def _images(
    inputs: Inputs, target: Target, console: Console, analyzed: Analyzed, images: ExitStack
) -> tuple[Image, Image | None]:
    """Return the run image and the image of the last build, open until `images` is left."""
    reference = analyzed.run_image.reference if analyzed.run_image else ""
    if not reference:
        raise InvalidContent("run image not found in analyzed metadata")
    base = images.enter_context(target.find(reference))
    if base is None:
        raise InvalidContent(f"access run image: {target.name(reference)} was not found")
    previous = None
    if analyzed.previous_image:
        try:
            _tell_previous(analyzed.previous_image, target, console)
            previous = images.enter_context(target.find(analyzed.previous_image))
        except InvalidContent as error:  # damaged, or replaced by another build meanwhile
            console.warn(f"Layers of the previous image cannot be reused: {error}")
    if inputs.layout:
        console.info(f"Using app image: {target.name(inputs.image)}")
    return base, previous


def _tell_previous(identifier: str, target: Target, console: Console) -> None:
    if target.keeps_identifier:
        console.debug(f"Reusing layers from image with id '{identifier}'")
    else:
        console.info(f"Reusing layers from image '{target.name(identifier)}'")


def _run_image(
    inputs: Inputs, analyzed: Analyzed, built: BuildMetadata, console: Console
) -> StackRunImage:
    """Return under which names the run image can be had later, for a rebase."""
    if inputs.platform_api < _RUN_IMAGES:
        return read_stack(inputs.stack_path, console)
    images = read_run(inputs.run_path, console)
    name = analyzed.run_image.image if analyzed.run_image else ""
    if found := run_image_of(name, images):
        return found
    if images and built.extensions:  # they may have chosen another one
        return StackRunImage(name)
    return images[0] if images else StackRunImage()


def _build_label(inputs: Inputs, built: BuildMetadata) -> str:
    launcher = launcher_metadata(inputs.launcher_path)
    return built.label(launcher, inputs.platform_api).decode()


def _report(
    inputs: Inputs,
    target: Target,
    saved: Saved,
    run_image: RunImageMetadata,
    left: Sequence[BuildpackDir],
) -> None:
    report = Report(
        saved.names,
        saved.digest,
        saved.image_id.encoded if target.keeps_identifier else "",
        saved.manifest_size,
        run_image,
        _bill(left) if inputs.platform_api < _NO_BILLS else (),
    )
    write_report(inputs.report_path, report)
    write_records(inputs, report, saved)


def _bill(left: Sequence[BuildpackDir]) -> tuple[BillEntry, ...]:
    """Return what build.toml files say of the materials of a build, before API 0.9."""
    return tuple(
        replace(BillEntry.from_document(entry, str(file)), buildpack=named)
        for each in left
        for named in (GroupElement(each.buildpack.id, each.buildpack.version),)
        for file in (each.path / "build.toml",)
        for entry in inners(read_toml(file) or {}, "bom", str(file))
    )


def _save_launch_cache(path: Path, layers: Sequence[Made], console: Console) -> None:
    """Keep the layers where the next build can read them faster than out of a daemon."""
    with _telling("launch cache", console), DirectoryCache(path) as cache:
        for layer in layers:
            if not cache.keep(layer.diff_id) and layer.part.tar is not None:
                cache.add(layer.part.tar)
        cache.commit()


@contextmanager
def _telling(what: str, console: Console) -> Generator[None]:
    """Go on when something cannot be exported, and tell that."""
    try:
        yield
    except (OcistowError, OSError) as error:
        console.warn(f"Failed to export {what}: {message_of(error)}")


def _refuse_extensions(analyzed: Analyzed, group: Group) -> None:
    if group.extensions or (analyzed.run_image is not None and analyzed.run_image.extend):
        refused = "detected order contains extensions which is not supported by the exporter"
        raise PhaseFailed(Code.EXPORT, f"failed to export: {refused}")
