"""The restorer: layers of the last build, and what was known of them, for this one to start from.

Source: buildpacks/spec, platform.md, "Restorer"; Go's lifecycle, phase/restorer.go and
internal/layer/metadata_restorer.go.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from ..oci.digest import Digest
from ..oci.errors import InvalidContent, OcistowError, PhaseFailed
from ..oci.wording import message_of
from .buildpacks.leftovers import Leftovers
from .caches.cache import Cache
from .caches.opening import open_cache
from .console import Console
from .files.analyzed import Analyzed, AnalyzedRunImage, read_analyzed, write_analyzed
from .files.group import Group, GroupElement, read_group, supported_api
from .files.labels import BuildpackLayers, CacheMetadata, LayerMetadata, LifecycleMetadata
from .files.run import read_run, run_image_of
from .images.image import Target
from .inputs import Inputs
from .layers.directories import read_buildpack_dir
from .layers.extract import extract
from .layers.sbom import SBOM
from .layers.sbom_restore import restore_sboms
from .platform_api import Code, Version
from .targets import open_registries

_SBOM = Version(0, 8)
_BUILD_IMAGE = Version(0, 10)
_RUN_IMAGE_CHECKED = Version(0, 14)
_CACHED_LAUNCH = Version(0, 14)  # layers of the image, too, are known from the cache alone


def restore(inputs: Inputs, target: Target, console: Console) -> None:
    """Restore what the buildpacks of group.toml left, and complete analyzed.toml.

    Raises:
        PhaseFailed: a buildpack is of an unknown API, an extension was detected, or an image
            cannot be read.
        InvalidContent, RegistryError, OSError: a file, the cache image or the disk is at fault.
    """
    try:
        group = read_group(inputs.group_path)
    except InvalidContent as error:
        raise PhaseFailed(Code.FAILED, str(error)) from error
    for buildpack in group.buildpacks:
        supported_api(buildpack, buildpack.api)
    if group.extensions:
        names = ", ".join(map(str, group.extensions))
        raise PhaseFailed(Code.RESTORE, f"failed to restore: extensions are unsupported: {names}")
    metadata = LifecycleMetadata()
    try:
        analyzed = read_analyzed(inputs.analyzed_path, console)
    except InvalidContent as error:
        console.warn(f"Not using analyzed data, usable file not found: {error}")
    else:
        metadata = analyzed.metadata
        write_analyzed(inputs.analyzed_path, _completed(analyzed, inputs, target, console), console)
    with open_cache(inputs) as cache:
        restore_layers(inputs, metadata, group, cache, console)


def restore_layers(
    inputs: Inputs,
    metadata: LifecycleMetadata,
    group: Group,
    cache: Cache | None,
    console: Console,
) -> None:
    """Restore what an image and a cache know of the buildpacks' layers, and those in the cache.

    What the cache lost, or what was damaged there, is told, and then the buildpack finds nothing
    of that layer.

    Raises:
        PhaseFailed: the disk refused, or the cache has SBOMs that it cannot give.
        InvalidContent, OSError: a file that is in the way cannot be read.
    """
    with console.timer("Restorer"):
        known = CacheMetadata()
        if cache is None:
            console.debug("Usable cache not provided, using empty cache metadata")
        else:
            if not cache.exists:
                console.info("Layer cache not found")
            known = cache.metadata()
        _Restorer(inputs, metadata, known, cache, console).restore(group)


@dataclass(frozen=True, slots=True)
class _Restorer:
    inputs: Inputs
    metadata: LifecycleMetadata
    known: CacheMetadata
    cache: Cache | None
    console: Console

    def restore(self, group: Group) -> None:
        console, api = self.console, self.inputs.platform_api
        console.debug("Restoring Layer Metadata")
        found = [Leftovers(self.inputs.layers_dir, buildpack) for buildpack in group.buildpacks]
        for leftovers in found:
            of_image = _of(self.metadata.buildpacks, leftovers.buildpack)
            if of_image.store is not None:
                leftovers.write_store(of_image.store)
        shas: list[dict[str, str]] = [{} for _ in found]
        if self.inputs.skip_layers:
            console.info("Skipping buildpack layer analysis")
        else:
            shas = [self._write_metadata(leftovers) for leftovers in found]
        jobs: list[Callable[[], None]] = [
            partial(self._fill, leftovers, name, sha)
            for leftovers, restored in zip(found, shas, strict=True)
            for name, sha in self._to_fill(leftovers, restored)
        ]
        with_sboms = api >= _SBOM and not self.inputs.skip_layers
        if api >= _SBOM and self.known.sbom:
            console.info("Restoring data for SBOM from cache")
            if with_sboms:
                jobs.append(self._fill_sboms)
        self._run(jobs)
        if with_sboms:
            restore_sboms(self.inputs.layers_dir, group.buildpacks)

    def _write_metadata(self, leftovers: Leftovers) -> dict[str, str]:
        """Write `<layer>.toml` where there is something to go on from; return their diffIDs."""
        shas: dict[str, str] = {}
        of_image = _of(self.metadata.buildpacks, leftovers.buildpack).layers
        of_cache = _of(self.known.buildpacks, leftovers.buildpack).layers
        for origin, layers, why_not in (
            ("app image", of_image, partial(_not_of_image, of_cache)),
            ("cache", of_cache, partial(self._not_of_cache, of_image)),
        ):
            for name, layer in sorted(layers.items()):
                identifier = f'"{leftovers.buildpack.id}:{name}"'
                if reason := why_not(name, layer):
                    self.console.debug(reason.format(identifier))
                    continue
                self.console.info(f"Restoring metadata for {identifier} from {origin}")
                self.console.debug(f"Writing layer metadata for {identifier}")
                leftovers.write_metadata(name, layer.data)
                shas[name] = layer.sha
        return shas

    def _not_of_cache(
        self, of_image: Mapping[str, LayerMetadata], name: str, layer: LayerMetadata
    ) -> str:
        if not layer.cache:
            return "Not restoring {} from cache, marked as cache=false"
        old = self.inputs.platform_api < _CACHED_LAUNCH
        if layer.launch and (name in of_image or old):
            return "Not restoring {} from cache, marked as launch=true"
        return ""

    def _to_fill(
        self, leftovers: Leftovers, restored: Mapping[str, str]
    ) -> Iterator[tuple[str, str]]:
        """Yield the layers whose content the cache has; remove those that were another there."""
        of_cache = _of(self.known.buildpacks, leftovers.buildpack).layers
        layers_dir, debug = self.inputs.layers_dir, self.console.debug
        debug(f"Reading Buildpack Layers directory {layers_dir}")
        for layer in read_buildpack_dir(layers_dir, leftovers.buildpack, debug).layers:
            known = of_cache.get(layer.name, LayerMetadata())
            if not known.cache:
                continue
            sha = restored.get(layer.name, "")
            if sha == known.sha:
                self.console.info(f'Restoring data for "{layer.identifier}" from cache')
                yield layer.name, sha
            else:
                self.console.info(f'Removing "{layer.identifier}", wrong sha')
                debug(f'Layer sha: "{sha}", cache sha: "{known.sha}"')
                leftovers.remove(layer.name)

    def _fill(self, leftovers: Leftovers, name: str, sha: str) -> None:
        identifier = f"{leftovers.buildpack.id}:{name}"
        self.console.debug(f'Retrieving data for "{sha}"')
        try:
            self._extract(sha, leftovers.path.name, name)
        except OcistowError as error:
            self.console.warn(f"Skipping restore for layer {identifier}: {error}")
            leftovers.remove(name)
        except OSError as error:
            raise _failed(f"restoring layer {identifier}: {message_of(error)}") from error

    def _fill_sboms(self) -> None:
        self.console.debug(f'Retrieving SBOM layer data for "{self.known.sbom}"')
        try:
            self._extract(self.known.sbom, SBOM, "cache")
        except OcistowError as error:
            self.console.warn(f"Skipping restore for SBOM: {error}")
        except OSError as error:
            raise _failed(message_of(error)) from error

    def _extract(self, sha: str, *names: str) -> None:
        assert self.cache is not None  # its metadata named the layer
        try:
            diff_id = Digest.parse(sha)
        except InvalidContent as error:
            raise InvalidContent(f"failed to find cache layer with SHA '{sha}'") from error
        with self.cache.open(diff_id) as tar:
            extract(tar, self.inputs.layers_dir, *names)

    def _run(self, jobs: list[Callable[[], None]]) -> None:
        """Run them at once, and raise what the first of them raised that failed."""
        if not jobs:
            return
        threads = min(len(jobs), self.inputs.jobs or len(os.sched_getaffinity(0)))
        with ThreadPoolExecutor(threads, "restore") as executor:
            futures: list[Future[None]] = [executor.submit(job) for job in jobs]
            try:
                for future in futures:
                    future.result()
            finally:
                executor.shutdown(cancel_futures=True)


def _completed(analyzed: Analyzed, inputs: Inputs, target: Target, console: Console) -> Analyzed:
    """Return it with the build image, if there is one, once the run image is seen to be there."""
    if inputs.build_image and inputs.platform_api >= _BUILD_IMAGE:
        console.debug(f"Pulling builder image metadata for {inputs.build_image}...")
        what = f"failed to pull builder image {inputs.build_image}"
        try:
            with open_registries(inputs) as remote, remote.find(inputs.build_image) as image:
                if image is None:
                    raise PhaseFailed(Code.FAILED, f"{what}: failed to get remote image")
                analyzed = replace(analyzed, build_image=image.identifier)
        except OcistowError as error:
            if isinstance(error, PhaseFailed):
                raise
            raise PhaseFailed(Code.FAILED, f"{what}: {error}") from error
    run_image = analyzed.run_image or AnalyzedRunImage()
    if run_image.extend:
        message = f"failed to restore: extending a run image is unsupported: {run_image.image}"
        raise PhaseFailed(Code.RESTORE, message)
    if inputs.platform_api >= _RUN_IMAGE_CHECKED:
        _check_run_image(run_image.image, inputs, target, console)
    return analyzed


def _check_run_image(name: str, inputs: Inputs, target: Target, console: Console) -> None:
    try:
        images = read_run(inputs.run_path, console)
    except InvalidContent as error:
        raise PhaseFailed(Code.FAILED, str(error)) from error
    if inputs.daemon or inputs.layout or run_image_of(name, images) is None:
        return
    try:
        target.check_access([name], [])
    except OcistowError as error:
        message = f"selected run image '{name}' is not accessible"
        raise PhaseFailed(Code.FAILED, message) from error


def _not_of_image(of_cache: Mapping[str, LayerMetadata], name: str, layer: LayerMetadata) -> str:
    if not layer.launch:
        return "Not restoring metadata for {}, marked as launch=false"
    if layer.build and not layer.cache:  # its content must be here, and nothing else has it
        return "Not restoring metadata for {}, marked as build=true, cache=false"
    if layer.cache and not of_cache.get(name, LayerMetadata()).cache:
        return "Not restoring metadata for {}, marked as cache=true, but not found in cache"
    return ""


def _of(known: tuple[BuildpackLayers, ...], buildpack: GroupElement) -> BuildpackLayers:
    empty = BuildpackLayers(buildpack.id, buildpack.version)
    return next((each for each in known if each.key == buildpack.id), empty)


def _failed(what: str) -> PhaseFailed:
    return PhaseFailed(Code.RESTORE, f"failed to restore: restoring data: {what}")
