"""What an application's image has above its run image, layer by layer.

Source: buildpacks/spec, platform.md, "Exporter"; Go's lifecycle, phase/exporter.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

from ...oci.digest import Digest
from ...oci.errors import InvalidContent
from ..failures import naming
from ..files.labels import BuildpackLayers, LayerMetadata, LifecycleMetadata
from ..files.metadata import BuildMetadata
from ..inputs import Inputs
from ..platform_api import Version
from .directories import BuildpackDir, LayerDir
from .sbom import sbom_dir
from .slices import slice_layers
from .tarball import LayerTar
from .trees import PROCESS_TYPES_ID, dir_layer, launcher_layer, process_types_layer

LAUNCH_SBOM = "buildpacksio/lifecycle:launch.sbom"
CONFIG = "buildpacksio/lifecycle:config"

_SBOM_LAYERS = Version(0, 8)


class Role(Enum):
    """What a layer is for, and so where the image's metadata mentions it."""

    BUILDPACK = auto()
    SBOM = auto()
    APP = auto()
    LAUNCHER = auto()
    CONFIG = auto()
    PROCESS_TYPES = auto()


@dataclass(frozen=True, slots=True)
class Part:
    """One layer.

    Attributes:
        created_by: what the image's history says.
        tar: its content; None if it is the layer of the previous image that `likely` names.
        likely: diffIDs of layers of the previous image that may be the same.
        owner: of a buildpack's layer, the position of the buildpack in its group.
        layer: of a buildpack's layer, its directory.
    """

    role: Role
    identifier: str
    created_by: str
    tar: LayerTar | None
    likely: tuple[Digest, ...] = ()
    owner: int = -1
    layer: LayerDir | None = None


def parts(
    inputs: Inputs,
    buildpacks: Sequence[BuildpackDir],
    build: BuildMetadata,
    previous: LifecycleMetadata,
) -> Iterator[Part]:
    """Yield the layers in their order, each with its tree as it is now.

    Raises:
        InvalidContent: a layer cannot be made, or its files are malformed.
        OSError: something cannot be read.
    """
    for owner, buildpack in enumerate(buildpacks):
        yield from _of_buildpack(inputs, owner, buildpack, previous)
        buildpack.check()
    ids = (inputs.uid, inputs.gid)
    if inputs.platform_api >= _SBOM_LAYERS and (sboms := sbom_dir(inputs.layers_dir, "launch")):
        tar = dir_layer(LAUNCH_SBOM, sboms, *ids)
        yield Part(Role.SBOM, tar.id, "Software Bill-of-Materials", tar, _likely(previous.sbom))
    with naming("exporting app layers: creating app layers"):
        apps = slice_layers(inputs.app_dir, build.slices, *ids)
    for number, tar in enumerate(apps, 1):
        created_by = f"Application Slice: {number}" if len(apps) > 1 else "Application Layer"
        yield Part(Role.APP, tar.id, created_by, tar, _likely(*previous.app))
    with naming("creating launcher layers"):
        tar = launcher_layer(inputs.launcher_path)
    yield Part(
        Role.LAUNCHER,
        tar.id,
        "Buildpacks Application Launcher",
        tar,
        _likely(previous.launcher),
    )
    tar = dir_layer(CONFIG, inputs.layers_dir / "config", *ids)
    yield Part(Role.CONFIG, tar.id, "Buildpacks Launcher Config", tar, _likely(previous.config))
    if build.processes:
        with naming(f"creating layer '{PROCESS_TYPES_ID}'"):
            tar = process_types_layer([process.type for process in build.processes])
        likely = _likely(previous.process_types)
        yield Part(Role.PROCESS_TYPES, tar.id, "Buildpacks Process Types", tar, likely)


def metadata(
    made: Iterable[tuple[Part, Digest]], buildpacks: Sequence[BuildpackDir]
) -> LifecycleMetadata:
    """Return what the image remembers of its layers, and their diffIDs."""
    made = list(made)
    layers: list[dict[str, LayerMetadata]] = [{} for _ in buildpacks]
    for part, diff_id in made:
        if part.layer is not None and part.layer.metadata is not None:
            said = replace(part.layer.metadata, sha=str(diff_id))
            layers[part.owner][part.layer.name] = said

    def of(role: Role) -> tuple[str, ...]:
        return tuple(str(diff_id) for part, diff_id in made if part.role is role)

    return LifecycleMetadata(
        app=of(Role.APP),
        sbom="".join(of(Role.SBOM)),
        buildpacks=tuple(
            BuildpackLayers(left.buildpack.id, left.buildpack.version, found, left.store)
            for left, found in zip(buildpacks, layers, strict=True)
        ),
        config="".join(of(Role.CONFIG)),
        launcher="".join(of(Role.LAUNCHER)),
        process_types="".join(of(Role.PROCESS_TYPES)),
    )


def _of_buildpack(
    inputs: Inputs, owner: int, buildpack: BuildpackDir, previous: LifecycleMetadata
) -> Iterator[Part]:
    id = buildpack.buildpack.id
    nothing = BuildpackLayers(id, "")
    known = next((known for known in previous.buildpacks if known.key == id), nothing)
    for layer in buildpack.layers:
        if not layer.launch:
            continue
        remembered = known.layers.get(layer.name)
        created_by = f"Layer: '{layer.name}', Created by buildpack: {buildpack.buildpack}"
        tar = None
        if layer.present:
            tar = dir_layer(layer.identifier, layer.path, inputs.uid, inputs.gid)
        elif layer.cache:
            raise InvalidContent(f"layer '{layer.identifier}' is cache=true but has no contents")
        elif remembered is None:
            raise InvalidContent(
                f"cannot reuse '{layer.identifier}', "
                f"previous image has no metadata for layer '{layer.identifier}'"
            )
        likely = _likely(remembered.sha) if remembered else ()
        if tar is None and not likely:
            raise InvalidContent(f"reusing layer: '{layer.identifier}': failed to get layer hash")
        yield Part(Role.BUILDPACK, layer.identifier, created_by, tar, likely, owner, layer)


def _likely(*texts: str) -> tuple[Digest, ...]:
    """Return diffIDs of the previous image; what is none cannot be met again."""
    found: list[Digest] = []
    for text in texts:
        try:
            found.append(Digest.parse(text))
        except InvalidContent:
            continue
    return tuple(found)
