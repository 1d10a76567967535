"""The builder: runs the bin/build of every buildpack of the group, one after the other.

Source: buildpacks/spec, platform.md, "builder", and buildpack.md, "Phase #3: Build".
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ..oci.errors import InvalidContent, PhaseFailed
from .buildpacks.buildpack import Builder, Buildpack
from .buildpacks.environment import Variables, of_buildpack, passed_through
from .buildpacks.execution import NotStarted, how_ended, run
from .buildpacks.outputs import Outputs, take_outputs
from .buildpacks.processes import Processes
from .buildpacks.target import completed, target_variables
from .console import Console
from .failures import failing
from .files.analyzed import Analyzed, Target, read_analyzed
from .files.document import write_file
from .files.group import Group, GroupElement, read_group, supported_api
from .files.metadata import BillEntry, BuildMetadata, Label, write_build_metadata
from .files.plan import Plan, Require, read_plan, write_buildpack_plan
from .golang.json import encode
from .inputs import Inputs
from .layers.directories import escaped, opened_below, remove
from .layers.sbom import SBOM, copy_sbom
from .platform_api import Code, Version


def build(inputs: Inputs, console: Console) -> None:
    """Run the buildpacks of group.toml, and write what they are to become.

    Raises:
        PhaseFailed: a buildpack failed, `BUILDPACK_BUILD`; or what is read is malformed.
    """
    with failing(Code.FAILED):
        group, plan = read_group(inputs.group_path), read_plan(inputs.plan_path)
    for element in group.buildpacks:
        supported_api(element, element.api)
    with failing(Code.FAILED, "reading analyzed.toml"):
        analyzed = read_analyzed(inputs.analyzed_path, console)
    if group.extensions:
        words = "group contains extensions which is not supported by the builder"
        raise PhaseFailed(Code.BUILD, f"failed to build: {words}")
    build_group(inputs, group, plan, analyzed, console)


def build_group(
    inputs: Inputs, group: Group, plan: Plan, analyzed: Analyzed, console: Console
) -> None:
    """Run the buildpacks of a group, whose APIs are known, and write what they are to become.

    Raises:
        PhaseFailed: a buildpack failed, `BUILDPACK_BUILD`; or wrote what it must not.
    """
    target = analyzed.run_image.target if analyzed.run_image else None
    with failing(Code.BUILD, "build"), console.timer("Builder"):
        metadata = _Build(inputs, target, console).of(group, plan)
    with failing(Code.FAILED, "write build metadata file"):
        path = inputs.layers_dir / "config" / "metadata.toml"
        write_build_metadata(path, metadata, inputs.platform_api)


class _Build:
    """The buildpacks that have been built, and what the next one sees of them."""

    def __init__(self, inputs: Inputs, target: Target | None, console: Console) -> None:
        self._inputs = inputs
        self._console = console
        self._builder = Builder(inputs.buildpacks_dir, inputs.extensions_dir)
        self._variables: Variables = passed_through(inputs.environ)
        self._target = completed(target, console)
        self._processes = Processes()
        self._labels: list[Label] = []
        self._slices: list[tuple[str, ...]] = []
        self._bills: dict[str, list[BillEntry]] = {"launch": [], "build": []}

    def of(self, group: Group, plan: Plan) -> BuildMetadata:
        """Build all of a group, and return what metadata.toml says of it."""
        try:
            with suppress(FileNotFoundError), opened_below(self._inputs.layers_dir) as directory:
                remove(SBOM, directory)
        except OSError as error:
            raise InvalidContent(f"cleaning layers SBOM directory: {error}") from error
        built: list[tuple[GroupElement, Outputs]] = []
        for element in group.buildpacks:
            self._console.debug(f"Running build for buildpack {element}")
            outputs = self._one(element, plan)
            built.append((element, outputs))
            plan = plan.without(outputs.met)
            self._console.debug(f"Finished running build for buildpack {element}")
        self._copy_sboms(built)
        return self._metadata(group)

    def _one(self, element: GroupElement, plan: Plan) -> Outputs:
        self._console.debug("Looking up buildpack")
        buildpack = self._builder.find(element)
        self._console.debug("Finding plan")
        given = plan.of(element.id)
        directory = self._inputs.layers_dir.absolute() / _directory_name(element)
        directory.mkdir(parents=True, exist_ok=True)
        self._run(buildpack, directory, given)
        outputs = take_outputs(buildpack, directory, given, self._variables, self._console)
        self._variables = outputs.variables
        self._console.debug("Updating buildpack processes")
        launch = outputs.launch
        self._labels += launch.labels
        self._slices += launch.slices
        by = GroupElement(element.id, element.version)
        for kind, bill in (("launch", launch.bill), ("build", outputs.build.bill)):
            self._bills[kind] += (replace(entry, buildpack=by) for entry in bill)
        self._console.debug("Updating process list")
        if warning := self._processes.add(launch):
            self._console.warn(warning)
        return outputs

    def _run(self, buildpack: Buildpack, directory: Path, given: Sequence[Require]) -> None:
        name = escaped(buildpack.element.id)
        self._console.debug("Creating plan directory")
        with tempfile.TemporaryDirectory(prefix=f"{name}-") as parent:
            self._console.debug("Preparing paths")
            plan = Path(parent, name, "plan.toml")
            write_buildpack_plan(plan, given)
            self._console.debug("Running build command")
            program = str(buildpack.directory / "bin" / "build")
            arguments = map(str, (directory, self._inputs.platform_dir, plan))
            variables = self._seen(buildpack, directory, plan)
            try:
                status = run(
                    [program, *arguments], self._inputs.app_dir, variables, self._console.write
                )
            except NotStarted as error:
                raise PhaseFailed(Code.BUILDPACK_BUILD, f"failed to build: {error}") from error
        if status:
            raise PhaseFailed(Code.BUILDPACK_BUILD, f"failed to build: {how_ended(status)}")

    def _seen(self, buildpack: Buildpack, directory: Path, plan: Path) -> dict[str, str]:
        inputs = self._inputs
        platform_dir = None if buildpack.clear_env else inputs.platform_dir
        variables = of_buildpack(self._variables, inputs.build_config_dir, platform_dir)
        variables["CNB_BUILDPACK_DIR"] = str(buildpack.directory)
        if buildpack.api >= Version(0, 8):
            variables["CNB_PLATFORM_DIR"] = str(inputs.platform_dir)
            variables["CNB_BP_PLAN_PATH"] = str(plan)
            variables["CNB_LAYERS_DIR"] = str(directory)
        if buildpack.api >= Version(0, 10):
            variables |= target_variables(self._target)
        if buildpack.api >= Version(0, 12) and inputs.exec_env:
            variables["CNB_EXEC_ENV"] = inputs.exec_env
        return variables

    def _copy_sboms(self, built: Sequence[tuple[GroupElement, Outputs]]) -> None:
        if self._inputs.platform_api >= Version(0, 8):
            self._console.debug("Copying SBOM files")
            for element, outputs in built:
                for sbom in outputs.sboms:
                    copy_sbom(sbom.path, self._inputs.layers_dir, sbom.target(element.id))
        if self._inputs.platform_api >= Version(0, 9):
            self._console.debug("Creating SBOM files for legacy BOM")
            for kind, bill in self._bills.items():
                entries = [entry.to_document() for entry in bill] or None
                write_file(
                    self._inputs.layers_dir / SBOM / kind / "sbom.legacy.json",
                    encode(entries) + b"\n",
                )

    def _metadata(self, group: Group) -> BuildMetadata:
        self._console.debug("Listing processes")
        has_bill = self._inputs.platform_api < Version(0, 9)
        return BuildMetadata(
            self._processes.default,
            group.buildpacks,
            (),
            tuple(self._labels),
            self._processes.listed(),
            tuple(self._slices),
            tuple(self._bills["launch"]) if has_bill else (),
        )


def _directory_name(element: GroupElement) -> str:
    name = escaped(element.id)
    if name in ("", ".", "..", "config", SBOM):  # what else is in the directory for all layers
        raise InvalidContent(f"'{element.id}' is no identifier of a buildpack")
    return name
