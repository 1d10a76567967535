"""Orders: which buildpacks are tried together, and what comes when they do not fit.

Source: buildpacks/spec, buildpack.md, "Order Resolution"; Go's lifecycle, phase/detector.go and
phase/hermetic_factory.go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

from ...oci.errors import InvalidContent, PhaseFailed
from ..files.group import Group, GroupElement, Order, System
from ..files.plan import Plan
from ..platform_api import Code
from .plan import not_detected

MAX_NESTED = 64  # orders within orders

_NOT_DETECTED = (Code.NOT_DETECTED, Code.NOT_DETECTED_AND_ERROR)

Detected: TypeAlias = tuple[tuple[GroupElement, ...], Plan]


@dataclass(frozen=True, slots=True)
class Alternatives:
    """An order in the place of a buildpack: exactly one of its groups takes that place.

    Attributes:
        optional: whether nothing may take it.
    """

    groups: Sequence[Sequence[Step]]
    optional: bool


Step: TypeAlias = "GroupElement | Alternatives"


class Visitor(Protocol):
    """What is done with the buildpacks of an order while it is resolved."""

    def visit(self, element: GroupElement) -> GroupElement | Alternatives | None:
        """Return what is known of a buildpack, whose detection begins; None to leave it out.

        Instead of a composite buildpack its order is returned.
        """
        ...

    def resolve(self, done: Sequence[GroupElement]) -> Detected:
        """Return who takes part, and the plan, when the whole group has been visited.

        Raises:
            PhaseFailed: nobody does; `NOT_DETECTED` or `NOT_DETECTED_AND_ERROR`.
        """
        ...


def alternatives(order: Order) -> Alternatives:
    """Return an order whose groups begin with extensions, if there are any."""
    if not order.extensions:
        return Alternatives(tuple(group.buildpacks for group in order.groups), optional=False)
    first = Alternatives(
        tuple(tuple(map(_extension, group.buildpacks)) for group in order.extensions), optional=True
    )
    groups: list[tuple[Step, ...]] = [(first, *group.buildpacks) for group in order.groups]
    return Alternatives(groups, optional=False)


def with_system(order: Order, system: System, debug: Callable[[str], None]) -> Order:
    """Return an order whose groups have the system's buildpacks around their own.

    What a group has already, in whatever version, is not added to it. `debug` hears how many are.
    """

    def surrounded(group: Group) -> Group:
        present = {element.id for element in group.buildpacks}
        before = [each for each in system.before if each.id not in present]
        after = [each for each in system.after if each.id not in present]
        for verb, added in (("Prepending", before), ("Appending", after)):
            if added:
                debug(f"{verb} {len(added)} system buildpack(s) to group")
        return replace(group, buildpacks=(*before, *group.buildpacks, *after))

    return replace(order, groups=tuple(map(surrounded, order.groups)))


def first_detected(order: Alternatives, visitor: Visitor) -> Detected:
    """Return the first group of an order of which somebody takes part.

    Raises:
        PhaseFailed: there is none. `NOT_DETECTED_AND_ERROR`, when a buildpack of any group failed.
        InvalidContent: orders are within orders without an end.
    """
    return _of_order(order, (), (), visitor, MAX_NESTED)


def _of_order(
    order: Alternatives,
    done: tuple[GroupElement, ...],
    following: Sequence[Step],
    visitor: Visitor,
    levels: int,
) -> Detected:
    if levels == 0:
        raise InvalidContent(f"over {MAX_NESTED} orders are within each other")
    failed = False
    for group in order.groups:
        try:
            return _of_group((*group, *following), done, visitor, levels)
        except PhaseFailed as error:
            if error.code not in _NOT_DETECTED:
                raise
            failed = failed or error.code == Code.NOT_DETECTED_AND_ERROR
    if order.optional:
        return _of_group(following, done, visitor, levels)
    raise not_detected(buildpack_failed=failed)


def _of_group(
    group: Sequence[Step], done: tuple[GroupElement, ...], visitor: Visitor, levels: int
) -> Detected:
    for number, step in enumerate(group, 1):
        if isinstance(step, GroupElement) and _is_done(step, done):
            continue
        found = visitor.visit(step) if isinstance(step, GroupElement) else step
        if isinstance(found, Alternatives):
            return _of_order(found, done, group[number:], visitor, levels - 1)
        if found is not None:
            done = (*done, found)
    return visitor.resolve(done)


def _is_done(element: GroupElement, done: Sequence[GroupElement]) -> bool:
    return any((each.id, each.extension) == (element.id, element.extension) for each in done)


def _extension(element: GroupElement) -> GroupElement:
    return replace(element, extension=True, optional=True)
