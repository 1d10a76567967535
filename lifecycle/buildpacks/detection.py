"""The runs of bin/detect, all of a group at once, and none twice.

Source: buildpacks/spec, buildpack.md, "Detection"; Go's lifecycle, buildpack/detect.go.
"""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Self

from ...oci.errors import InvalidContent
from ..console import Console
from ..files.analyzed import Target
from ..files.group import GroupElement
from ..files.plan import Sections, read_build_plan
from ..golang.json import encode
from ..inputs import Inputs
from ..platform_api import Version
from .buildpack import Builder, Buildpack
from .environment import of_buildpack, passed_through
from .execution import Program, unnamed
from .order import Alternatives, Detected
from .plan import PASS, Run, key, resolve
from .target import completed, target_variables
from .transcript import Transcript

_PLAN = "plan.toml"


@dataclass(frozen=True, slots=True)
class _Started:
    buildpack: Buildpack
    program: Program
    output: BinaryIO
    plan: Path


class Detection:
    """Begins to run the bin/detect of what an order names, and waits for the whole group.

    Programs that still run when the block is left are ended.
    """

    def __init__(
        self, inputs: Inputs, builder: Builder, target: Target | None, console: Console
    ) -> None:
        self.transcript = Transcript()
        self._inputs = inputs
        self._builder = builder
        self._given_target = target
        self._console = console
        self._runs: dict[str, Run] = {}
        self._started: dict[str, _Started] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        for started in self._started.values():
            started.program.send(signal.SIGTERM)  # all at once, then wait for one after the other
        self._stack.close()

    def visit(self, element: GroupElement) -> GroupElement | Alternatives | None:
        """Begin a run, unless it is that of a composite, or of one that is not for this build.

        Raises:
            PhaseFailed: the buildpack's API is not known.
            InvalidContent, OSError: there is no such buildpack, or a malformed one.
        """
        buildpack = self._builder.find(element)
        if buildpack.order:
            return buildpack.alternatives(optional=element.optional)
        known = replace(element, api=str(buildpack.api), homepage=buildpack.homepage)
        if not self._fits(buildpack) and not element.optional:
            self._runs[key(known)] = Run(-1, error=self._misfit(buildpack))
            return known
        if not self._is_for_execution_environment(buildpack):
            return None
        if key(known) not in self._runs and key(known) not in self._started:
            self._start(buildpack, key(known))
        return known

    def resolve(self, done: Sequence[GroupElement]) -> Detected:
        """Wait for the runs of a group, and see who of it takes part.

        Raises:
            PhaseFailed: nobody does.
        """
        for element in done:
            if (started := self._started.pop(key(element), None)) is not None:
                self._runs[key(element)] = self._ended(started)
        return resolve(done, self._runs, self.transcript)

    @cached_property
    def _target(self) -> Target:
        return completed(self._given_target, self._console)

    def _fits(self, buildpack: Buildpack) -> bool:
        if self._inputs.platform_api < Version(0, 12) or not buildpack.targets:
            return True
        for supported in buildpack.targets:
            self._console.debug(f"Checking for match against descriptor: {supported}")
            if supported.fits(self._target):
                return True
        return False

    def _misfit(self, buildpack: Buildpack) -> str:
        supported = [target.document() for target in buildpack.targets]
        return (
            "unable to satisfy target os/arch constraints; "
            f"run image: {_json(self._target.to_document())}, buildpack: {_json(supported)}"
        )

    def _is_for_execution_environment(self, buildpack: Buildpack) -> bool:
        wanted = self._inputs.exec_env
        known = buildpack.exec_envs if buildpack.api >= Version(0, 12) else ()
        if self._inputs.platform_api < Version(0, 15) or not wanted or not known:
            return True
        if {"*", wanted} & set(known):
            return True
        self._console.debug(
            f"Skipping {buildpack.element} due to execution environment mismatch; "
            f"current: {wanted}, buildpack supports: [{' '.join(known)}]"
        )
        return False

    def _start(self, buildpack: Buildpack, name: str) -> None:
        program = buildpack.directory / "bin" / "detect"
        if buildpack.element.extension and not program.exists():
            written = buildpack.directory / "detect" / _PLAN  # what a run would have written
            self._runs[name] = self._read(buildpack, written, None, required=False)
            return
        plan = self._directory() / _PLAN
        plan.touch(0o600)
        output = self._stack.enter_context(unnamed())
        try:
            started = Program.start(
                [str(program), str(self._inputs.platform_dir), str(plan)],
                self._inputs.app_dir,
                self._variables(buildpack, plan),
                output.fileno(),
            )
        except (InvalidContent, OSError) as error:
            self._runs[name] = Run(-1, error=str(error))
            return
        self._stack.enter_context(started)
        self._started[name] = _Started(buildpack, started, output, plan)

    def _directory(self) -> Path:
        return Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="plan.")))

    def _variables(self, buildpack: Buildpack, plan: Path) -> dict[str, str]:
        inputs = self._inputs
        target = target_variables(self._target)
        variables = of_buildpack(
            passed_through(inputs.environ),
            inputs.build_config_dir,
            None if buildpack.clear_env else inputs.platform_dir,
        )
        kind = "EXTENSION" if buildpack.element.extension else "BUILDPACK"
        variables[f"CNB_{kind}_DIR"] = str(buildpack.directory)
        if buildpack.api >= Version(0, 8):
            variables["CNB_PLATFORM_DIR"] = str(inputs.platform_dir)
            variables["CNB_BUILD_PLAN_PATH"] = str(plan)
        if buildpack.api >= Version(0, 10):
            variables |= target
        if buildpack.api >= Version(0, 12) and inputs.exec_env:
            variables["CNB_EXEC_ENV"] = inputs.exec_env
        return variables

    def _ended(self, started: _Started) -> Run:
        status = started.program.wait()
        output = started.output if started.output.seek(0, 2) else None
        if status != PASS:
            return Run(max(status, -1), output)
        return self._read(started.buildpack, started.plan, output, required=True)

    def _read(
        self, buildpack: Buildpack, plan: Path, output: BinaryIO | None, *, required: bool
    ) -> Run:
        try:
            sections = read_build_plan(plan)
        except (InvalidContent, OSError) as error:
            return Run(-1, output, str(error))
        if sections is None:
            if required:
                return Run(-1, output, f"open {plan}: no such file or directory")
            sections = (Sections(),)
        refused = _refused(buildpack.element, sections)
        return Run(-1 if refused else PASS, output, refused, sections)


def _refused(element: GroupElement, plans: Sequence[Sections]) -> str:
    requires = [require for sections in plans for require in sections.requires]
    kind = "extension" if element.extension else "buildpack"
    if element.extension and requires:
        return f'extension {element.id} outputs "requires" which is not allowed'
    if any(require.version for require in requires):
        return (
            f'{kind} {element.id} has a "version" key which is not supported. '
            '"metadata.version" should be used instead'
        )
    return ""


def _json(value: object) -> str:
    return encode(value).decode()
