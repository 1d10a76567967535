"""Which buildpacks of a group take part, and what each shall provide to the others.

Source: buildpacks/spec, buildpack.md, "Phase #1: Detection"; Go's lifecycle, phase/detector.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import BinaryIO

from ...oci.errors import PhaseFailed
from ..console import Level
from ..files.group import GroupElement
from ..files.plan import Plan, PlanEntry, Require, Sections
from ..platform_api import Code
from .transcript import Transcript

PASS, FAIL = 0, 100  # exit statuses of bin/detect


@dataclass(frozen=True, slots=True)
class Run:
    """How bin/detect ended.

    Attributes:
        status: its exit status; negative when there is none.
        output: what it wrote; None for nothing.
        error: why there is no status, or no plan.
        plans: the alternatives that it wrote, the first one first; never empty.
    """

    status: int
    output: BinaryIO | None = None
    error: str = ""
    plans: tuple[Sections, ...] = (Sections(),)


@dataclass(frozen=True, slots=True)
class _Option:
    """A buildpack that passed, with one of its plans."""

    element: GroupElement
    sections: Sections


@dataclass(slots=True)
class _Dependency:
    """What is known of one name: who provides it, and who requires it before anybody does."""

    providers: list[GroupElement] = field(default_factory=list[GroupElement])
    requires: list[Require] = field(default_factory=list[Require])
    early: list[GroupElement] = field(default_factory=list[GroupElement])
    unused: list[GroupElement] = field(default_factory=list[GroupElement])


def resolve(
    done: Sequence[GroupElement], runs: Mapping[str, Run], transcript: Transcript
) -> tuple[tuple[GroupElement, ...], Plan]:
    """Return who takes part of a group whose runs have all ended, and what they agreed on.

    Every alternative of every plan is tried with every one of the others, those of the last
    buildpack first. A buildpack that is optional is left out where it requires what nobody before
    it provides, or provides what nobody requires; but only with its last alternative.

    Args:
        done: the group, in its order.
        runs: by `key`.
        transcript: is told what became of each.

    Raises:
        PhaseFailed: nothing was detected; `NOT_DETECTED_AND_ERROR` when a buildpack is to blame.
    """
    for element in done:
        _tell_output(element, runs[key(element)], transcript)
    found = _first_that_works(_passed(done, runs, transcript), transcript)
    if found is None:
        raise not_detected()
    trial, dependencies = found
    if len(done) != len(trial):
        transcript.info(f"{len(trial)} of {len(done)} buildpacks participating")
    width = max(len(option.element.id) for option in trial)
    for option in trial:
        transcript.info(f"{option.element.id:<{width}} {option.element.version}")
    entries = (
        PlanEntry(tuple(map(_provider, entry.providers)), tuple(entry.requires))
        for entry in dependencies.values()
    )
    return tuple(replace(option.element, optional=False) for option in trial), Plan(tuple(entries))


def key(element: GroupElement) -> str:
    """Return what a run is known by: a buildpack may have the name of an extension."""
    return f"{'Extension' if element.extension else 'Buildpack'} {element}"


def not_detected(*, buildpack_failed: bool = False) -> PhaseFailed:
    """Return the error of a group, or an order, of which nobody takes part."""
    if buildpack_failed:
        words = "buildpack(s) failed with err"
        return PhaseFailed(Code.NOT_DETECTED_AND_ERROR, f"failed to detect: {words}")
    return PhaseFailed(Code.NOT_DETECTED, "failed to detect: no buildpacks participating")


def _tell_output(element: GroupElement, run: Run, transcript: Transcript) -> None:
    level = Level.DEBUG if run.status in (PASS, FAIL) else Level.INFO
    if run.output is not None:
        transcript.say(level, f"======== Output: {element} ========")
        transcript.output(level, run.output)
    if run.error:
        transcript.say(level, f"======== Error: {element} ========")
        transcript.say(level, run.error)


def _passed(
    done: Sequence[GroupElement], runs: Mapping[str, Run], transcript: Transcript
) -> list[list[_Option]]:
    transcript.debug("======== Results ========")
    passed: list[list[_Option]] = []
    detected, errors, viable = True, False, False
    for element in done:
        run = runs[key(element)]
        if run.status == PASS:
            transcript.debug(f"pass: {element}")
            passed.append(_options(element, run.plans))
            viable = viable or not element.extension
            continue
        detected = detected and element.optional
        if run.status == FAIL:
            transcript.debug(f"{'skip' if element.optional else 'fail'}: {element}")
        else:
            shown = f" ({run.status})" if run.status >= 0 else ""
            transcript.info(f"err:  {element}{shown}")
            errors = True
    if not detected:
        raise not_detected(buildpack_failed=errors)
    if not viable:
        transcript.debug("fail: no viable buildpacks in group")
        raise not_detected()
    return passed


def _options(element: GroupElement, plans: Sequence[Sections]) -> list[_Option]:
    certain = replace(element, optional=False)
    *others, last = plans
    return [*(_Option(certain, sections) for sections in others), _Option(element, last)]


def _provider(element: GroupElement) -> GroupElement:
    return replace(element, optional=False, api="", homepage="")


def _first_that_works(
    passed: Sequence[Sequence[_Option]], transcript: Transcript
) -> tuple[list[_Option], dict[str, _Dependency]] | None:
    for number, trial in enumerate(product(*passed), 1):
        transcript.debug(f"Resolving plan... (try #{number})")
        if (found := _reduced(list(trial), transcript)) is not None:
            return found
    return None


def _reduced(
    trial: list[_Option], transcript: Transcript
) -> tuple[list[_Option], dict[str, _Dependency]] | None:
    while True:
        dependencies = _dependencies(trial)
        open_ends = _open_ends(dependencies)
        if not open_ends:
            break
        for element, why in open_ends:
            if not element.optional:
                transcript.debug(f"fail: {element} {why}")
                return None
            transcript.debug(f"skip: {element} {why}")
            trial = [option for option in trial if option.element != element]
    if trial:
        return trial, dependencies
    transcript.debug("fail: no viable buildpacks in group")
    return None


def _open_ends(dependencies: Mapping[str, _Dependency]) -> list[tuple[GroupElement, str]]:
    items = dependencies.items()
    unmet = [(element, f"requires {name}") for name, of in items for element in of.early]
    unused = [(element, f"provides unused {name}") for name, of in items for element in of.unused]
    return unmet + unused


def _dependencies(trial: Sequence[_Option]) -> dict[str, _Dependency]:
    found: dict[str, _Dependency] = {}
    for option in trial:
        for name in option.sections.provides:
            found.setdefault(name, _Dependency()).unused.append(option.element)
        for require in option.sections.requires:
            entry = found.setdefault(require.name, _Dependency())
            entry.providers += entry.unused
            entry.unused = []
            if entry.providers:
                entry.requires.append(require)
            else:
                entry.early.append(option.element)
    return found
