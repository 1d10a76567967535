"""What one buildpack left when it was built: layers for those after it, SBOMs, and launch.toml.

Source: buildpacks/spec, buildpack.md, "Phase #3: Build"; Go's lifecycle, buildpack/build.go and
buildpack/bomfile.go.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...oci.errors import InvalidContent
from ..console import Console
from ..files.labels import LayerMetadata
from ..files.launch import BuildResult, Launch, read_build_result, read_launch
from ..files.metadata import BillEntry
from ..files.plan import Require
from ..layers.directories import escaped, read_layer_metadata
from ..platform_api import Version
from .buildpack import Buildpack
from .environment import with_layer

MEDIA_TYPES = {
    "sbom.cdx.json": "application/vnd.cyclonedx+json",
    "sbom.spdx.json": "application/spdx+json",
    "sbom.syft.json": "application/vnd.syft+json",
}

_NO_BILL_TABLE = (
    "BOM table is deprecated in this buildpack api version, though it remains supported for "
    "backwards compatibility. Buildpack authors should write BOM information to "
    "<layer>.sbom.<ext>, launch.sbom.<ext>, or build.sbom.<ext>."
)


@dataclass(frozen=True, slots=True)
class Sbom:
    """An SBOM that a buildpack wrote.

    Attributes:
        kind: `launch`, `build` or `cache`: the directory of all of them that it goes to.
        layer: of which it is; empty for the SBOM of all that a buildpack does.
    """

    path: Path
    kind: str
    layer: str = ""

    def target(self, buildpack: str) -> Path:
        """Return where it goes, below `<layers>/sbom`."""
        form = next(form for form in MEDIA_TYPES if self.path.name.endswith(f".{form}"))
        return Path(self.kind, escaped(buildpack), self.layer, form)


@dataclass(frozen=True, slots=True)
class Outputs:
    """What is taken from a buildpack's directory.

    Attributes:
        met: names of entries of its plan that need not be provided any more.
        variables: what those after it see.
    """

    sboms: tuple[Sbom, ...]
    met: tuple[str, ...]
    launch: Launch
    build: BuildResult
    variables: Mapping[str, str]


def take_outputs(
    buildpack: Buildpack,
    directory: Path,
    given: Sequence[Require],
    variables: Mapping[str, str],
    console: Console,
) -> Outputs:
    """Read what a buildpack left in `directory`; layers of no type are set aside.

    Args:
        buildpack: which has ended.
        directory: `<layers>/<buildpack>`.
        given: its plan.
        variables: what it saw of other buildpacks' layers.
        console: hears what is deprecated.

    Raises:
        InvalidContent: something is malformed, or not as the specification wants it.
        OSError: something cannot be read.
    """
    console.debug("Processing layers")
    try:
        layers = _layers(directory)
    except (InvalidContent, OSError) as error:
        raise InvalidContent(f"failed to process buildpack layer: {error}") from error
    console.debug("Updating environment")
    for name, layer in layers.items():
        if layer.build:
            variables = with_layer(variables, directory / name)
    console.debug("Reading output files")
    result = read_build_result(directory / "build.toml")
    written = _sboms(directory)
    _warn_of_bill(result.bill, written, console)
    sboms = tuple(sbom for path in written for sbom in _taken(path, layers))
    met = _met(given, result.unmet)
    _check_media_types(sboms, buildpack)
    launch = read_launch(directory / "launch.toml", buildpack.element.id, buildpack.api)
    _warn_of_bill(launch.bill, written, console)
    return Outputs(sboms, met, _of_api(launch, buildpack, console), result, variables)


def _layers(directory: Path) -> dict[str, LayerMetadata]:
    found: dict[str, LayerMetadata] = {}
    for name in _names(directory, ".toml"):
        try:
            layer = read_layer_metadata(directory / name)
        except (InvalidContent, OSError) as error:
            raise InvalidContent(f"failed to decode layer metadata file: {error}") from error
        stem = name.removesuffix(".toml")
        if not (layer.build or layer.launch or layer.cache):
            _set_aside(directory / stem)
        found[stem] = layer
    return found


def _set_aside(layer: Path) -> None:
    """Rename a layer that is for nobody, so that no later phase takes it for one that is."""
    ignored = layer.with_name(f"{layer.name}.ignore")
    if not os.path.lexists(layer):
        return
    if ignored.is_dir() and not ignored.is_symlink():
        shutil.rmtree(ignored)  # of a build before, into the same directory
    try:
        layer.rename(ignored)
    except OSError as error:
        raise InvalidContent(f"failed to rename layer directory: {error}") from error


def _met(given: Sequence[Require], unmet: Sequence[str]) -> tuple[str, ...]:
    names = [require.name for require in given]
    for name in unmet:
        if not name:
            raise InvalidContent("unmet.name is required")
        if name not in names:
            raise InvalidContent(f"unmet.name '{name}' must match a requested dependency")
    return tuple(name for name in names if name not in unmet)


def _sboms(directory: Path) -> list[Path]:
    return [directory / name for name in _names(directory, ".json") if ".sbom." in name]


def _taken(path: Path, layers: Mapping[str, LayerMetadata]) -> list[Sbom]:
    name, _, _ = path.name.rpartition(".sbom.")
    if name in ("launch", "build"):
        return [Sbom(path, name)]
    if (layer := layers.get(name)) is None:
        return []
    image = Sbom(path, "launch" if layer.launch else "build", name)
    return [image, replace(image, kind="cache")] if layer.cache else [image]


def _check_media_types(sboms: Sequence[Sbom], buildpack: Buildpack) -> None:
    declared = {text.partition(";")[0].strip().lower() for text in buildpack.sboms}
    for sbom in sboms:
        known = (kind for form, kind in MEDIA_TYPES.items() if sbom.path.name.endswith(f".{form}"))
        if (media_type := next(known, None)) is None:
            raise InvalidContent(f"unsupported SBOM file format: '{sbom.path}'")
        if media_type not in declared:
            raise InvalidContent(
                f"validating SBOM file '{sbom.path}' for buildpack: '{buildpack.element}': "
                f"undeclared SBOM media type: '{media_type}'"
            )


def _warn_of_bill(bill: Sequence[BillEntry], sboms: Sequence[Path], console: Console) -> None:
    if bill and not sboms:
        console.warn(_NO_BILL_TABLE)


def _of_api(launch: Launch, buildpack: Buildpack, console: Console) -> Launch:
    if buildpack.api >= Version(0, 8):
        return launch
    for process in launch.processes:
        if process.working_dir:
            console.warn(
                "Warning: process working directory isn't supported in this buildpack api version. "
                f"Ignoring working directory for process '{process.type}'"
            )
    here = tuple(replace(process, working_dir="") for process in launch.processes)
    return replace(launch, processes=here)


def _names(directory: Path, suffix: str) -> list[str]:
    with os.scandir(directory) as entries:
        names = [
            entry.name
            for entry in entries
            if entry.name.endswith(suffix) and not entry.is_dir(follow_symlinks=False)
        ]
    return sorted(names, key=os.fsencode)
