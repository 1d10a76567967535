"""In which order groups are tried."""

from collections.abc import Mapping, Sequence

import pytest

from ocistow.lifecycle.buildpacks.order import (
    Alternatives,
    Detected,
    alternatives,
    first_detected,
    with_system,
)
from ocistow.lifecycle.buildpacks.plan import not_detected
from ocistow.lifecycle.files.group import Group, GroupElement, Order, System
from ocistow.lifecycle.files.plan import Plan
from ocistow.lifecycle.platform_api import Code
from ocistow.oci.errors import InvalidContent, PhaseFailed


def element(text: str) -> GroupElement:
    return GroupElement(text.rstrip("?!"), "1", optional=text.endswith("?"))


def group(text: str) -> tuple[GroupElement, ...]:
    return tuple(map(element, text.split()))


class Visitor:
    """Knows composites by their names, and which groups fail, or fail with an error."""

    def __init__(
        self, composites: Mapping[str, Sequence[str]], passing: str = "", errors: str = ""
    ) -> None:
        self.tried: list[str] = []
        self._composites = composites
        self._passing = passing
        self._errors = errors.split(",")

    def visit(self, element: GroupElement) -> GroupElement | Alternatives | None:
        if element.id == "left-out":
            return None
        if (groups := self._composites.get(element.id)) is not None:
            return Alternatives([group(each) for each in groups], element.optional)
        return element

    def resolve(self, done: Sequence[GroupElement]) -> Detected:
        names = " ".join(("+" if each.extension else "") + each.id for each in done)
        self.tried.append(names)
        if names == self._passing:
            return tuple(done), Plan()
        raise not_detected(buildpack_failed=names in self._errors)


def order(*groups: str, extensions: Sequence[str] = ()) -> Order:
    return Order(
        tuple(Group(group(each)) for each in groups),
        tuple(Group(group(each)) for each in extensions),
    )


def tried(order: Order, composites: Mapping[str, Sequence[str]] | None = None) -> list[str]:
    visitor = Visitor(composites or {})
    with pytest.raises(PhaseFailed):
        first_detected(alternatives(order), visitor)
    return visitor.tried


def test_groups_are_tried_one_after_the_other() -> None:
    assert tried(order("A B", "C")) == ["A B", "C"]


def test_the_first_that_passes_is_the_last_that_is_tried() -> None:
    visitor = Visitor({}, passing="B")
    elements, _ = first_detected(alternatives(order("A", "B", "C")), visitor)
    assert [each.id for each in elements] == ["B"]
    assert visitor.tried == ["A", "B"]


def test_a_composite_stands_for_each_of_its_groups() -> None:
    composites = {"X": ["B C", "D"], "Y": ["E", "X"]}
    assert tried(order("A X F"), composites) == ["A B C F", "A D F"]
    assert tried(order("X Y"), composites) == [
        "B C E",
        "B C",
        "B C D",
        "D E",
        "D B C",
        "D",
    ]


def test_an_optional_composite_can_stand_for_nothing() -> None:
    assert tried(order("A X? F"), {"X": ["B"]}) == ["A B F", "A F"]


def test_a_buildpack_is_tried_once_a_group() -> None:
    assert tried(order("A A B")) == ["A B"]


def test_what_is_not_for_this_build_is_left_out() -> None:
    assert tried(order("A left-out B")) == ["A B"]


def test_extensions_are_tried_before_the_buildpacks_and_without_them() -> None:
    assert tried(order("A", "B", extensions=["E", "F"])) == [
        "+E A",
        "+F A",
        "A",
        "+E B",
        "+F B",
        "B",
    ]


def test_an_error_in_any_group_is_the_order_s_error() -> None:
    visitor = Visitor({}, errors="A")
    with pytest.raises(PhaseFailed) as caught:
        first_detected(alternatives(order("A", "B")), visitor)
    assert caught.value.code == Code.NOT_DETECTED_AND_ERROR
    assert str(caught.value) == "failed to detect: buildpack(s) failed with err"


def test_an_error_within_what_is_optional_is_forgotten() -> None:
    visitor = Visitor({"X": ["B"]}, errors="A B")
    with pytest.raises(PhaseFailed) as caught:
        first_detected(alternatives(order("A X?")), visitor)
    assert caught.value.code == Code.NOT_DETECTED
    assert str(caught.value) == "failed to detect: no buildpacks participating"


def test_an_order_without_groups_is_not_detected() -> None:
    with pytest.raises(PhaseFailed) as caught:
        first_detected(alternatives(Order()), Visitor({}))
    assert caught.value.code == Code.NOT_DETECTED


def test_a_composite_of_itself_is_refused() -> None:
    with pytest.raises(InvalidContent, match="over 64 orders are within each other"):
        first_detected(alternatives(order("X")), Visitor({"X": ["X", "X"]}))


def test_the_system_s_buildpacks_surround_every_group() -> None:
    system, heard = System(group("S T"), group("U V")), list[str]()
    surrounded = with_system(order("A", "T B U"), system, heard.append)
    assert surrounded == order("S T A U V", "S T B U V")
    assert heard == [
        "Prepending 2 system buildpack(s) to group",
        "Appending 2 system buildpack(s) to group",
        "Prepending 1 system buildpack(s) to group",
        "Appending 1 system buildpack(s) to group",
    ]
    assert with_system(order("A"), System(), heard.append) == order("A")
    assert len(heard) == 4
