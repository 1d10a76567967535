"""Who takes part of a group, and what they agree on."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocistow.lifecycle.buildpacks.execution import unnamed
from ocistow.lifecycle.buildpacks.plan import FAIL, PASS, Run, key, resolve
from ocistow.lifecycle.buildpacks.transcript import Transcript
from ocistow.lifecycle.console import Console, Level
from ocistow.lifecycle.files.group import GroupElement
from ocistow.lifecycle.files.plan import (
    Plan,
    PlanEntry,
    Require,
    Sections,
    read_build_plan,
    read_plan,
    write_buildpack_plan,
    write_plan,
)
from ocistow.lifecycle.platform_api import Code
from ocistow.oci.errors import InvalidContent, PhaseFailed

A, B, C = (GroupElement(name, "1", api="0.10", homepage=f"of {name}") for name in "ABC")


def optional(element: GroupElement) -> GroupElement:
    return replace(element, optional=True)


def passing(provides: str = "", requires: str = "") -> Sections:
    return Sections(tuple(provides), tuple(map(Require, requires)))


def told(transcript: Transcript, level: Level = Level.DEBUG, *, everything: bool = False) -> str:
    out = io.BytesIO()
    transcript.tell(Console(out, level=level), everything=everything)
    return out.getvalue().decode()


def resolved(*runs: tuple[GroupElement, Run]) -> tuple[list[str], Plan, str]:
    transcript = Transcript()
    done = [element for element, _ in runs]
    elements, plan = resolve(done, {key(each): run for each, run in runs}, transcript)
    return [element.id for element in elements], plan, told(transcript)


def refused(*runs: tuple[GroupElement, Run]) -> tuple[int, str]:
    transcript = Transcript()
    with pytest.raises(PhaseFailed) as caught:
        resolve([each for each, _ in runs], {key(each): run for each, run in runs}, transcript)
    return caught.value.code, told(transcript)


def run(*plans: Sections) -> Run:
    return Run(PASS, plans=plans or (Sections(),))


def test_everybody_who_passes_takes_part() -> None:
    assert resolved((A, run()), (B, run())) == (
        ["A", "B"],
        Plan(),
        "======== Results ========\npass: A@1\npass: B@1\nResolving plan... (try #1)\nA 1\nB 1\n",
    )


def test_names_are_written_in_columns() -> None:
    _, _, text = resolved((A, run()), (GroupElement("longer", "2"), run()))
    assert text.endswith("\nA      1\nlonger 2\n")


def test_who_is_required_provides_for_all_that_come_after() -> None:
    ids, plan, _ = resolved(
        (A, run(passing("x"))), (B, run(passing("x", "x"))), (C, run(passing("", "x")))
    )
    assert ids == ["A", "B", "C"]
    bare = [GroupElement(name, "1") for name in "AB"]
    assert plan == Plan((PlanEntry(tuple(bare), (Require("x"), Require("x"))),))


def test_who_fails_ends_the_group_but_for_an_optional_one() -> None:
    code, text = refused((A, run()), (B, Run(FAIL)))
    assert (code, "fail: B@1\n" in text) == (Code.NOT_DETECTED, True)
    ids, _, text = resolved((A, run()), (optional(B), Run(FAIL)))
    assert ids == ["A"]
    assert "skip: B@1\n" in text
    assert "1 of 2 buildpacks participating\n" in text


def test_an_error_of_a_buildpack_is_another_end() -> None:
    code, text = refused((A, Run(1)), (B, Run(-1)))
    assert code == Code.NOT_DETECTED_AND_ERROR
    assert text.endswith("err:  A@1 (1)\nerr:  B@1\n")
    ids, _, _ = resolved((optional(A), Run(1)), (B, run()))
    assert ids == ["B"]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (passing("x"), passing(), "fail: A@1 provides unused x"),
        (passing("", "x"), passing(), "fail: A@1 requires x"),
        (passing("", "x"), passing("x"), "fail: A@1 requires x"),  # too early
    ],
)
def test_open_ends_of_who_is_not_optional_fail(
    first: Sections, second: Sections, expected: str
) -> None:
    code, text = refused((A, run(first)), (B, run(second)))
    assert (code, f"{expected}\n" in text) == (Code.NOT_DETECTED, True)


def test_optional_ones_are_left_out_until_all_ends_meet() -> None:
    ids, plan, text = resolved(
        (optional(A), run(passing("x"))), (optional(B), run(passing("y", "xz"))), (C, run())
    )
    assert (ids, plan) == (["C"], Plan())
    assert [line for line in text.splitlines() if line.startswith("skip")] == [
        "skip: B@1 requires z",
        "skip: B@1 provides unused y",
        "skip: A@1 provides unused x",
    ]


def test_alternatives_are_tried_in_their_order() -> None:
    with_or = run(passing("x"), passing("y"), passing())
    ids, plan, text = resolved((A, with_or), (B, run(passing("", "y"))))
    assert (ids, [entry.requires[0].name for entry in plan.entries]) == (["A", "B"], ["y"])
    assert "(try #2)" in text
    assert "(try #3)" not in text


def test_only_with_its_last_alternative_is_a_buildpack_optional() -> None:
    ids, _, text = resolved((optional(A), run(passing("x"), passing("y"))), (B, run()))
    assert ids == ["B"]
    assert "fail: A@1 provides unused x\nResolving plan... (try #2)\nskip: A@1 provides" in text


def test_nobody_is_nothing() -> None:
    code, text = refused((optional(A), Run(FAIL)))
    assert (code, text.endswith("fail: no viable buildpacks in group\n")) == (20, True)
    code, text = refused((optional(A), run(passing("x"))))
    assert (code, text.endswith("fail: no viable buildpacks in group\n")) == (20, True)


def test_an_extension_alone_is_nothing() -> None:
    extension = replace(optional(A), extension=True)
    assert refused((extension, run()))[0] == Code.NOT_DETECTED
    ids, plan, _ = resolved((extension, run(passing("x"))), (B, run(passing("", "x"))))
    assert ids == ["A", "B"]
    assert plan.entries[0].providers == (GroupElement("A", "1", extension=True),)


def test_output_is_told_whole_and_before_the_results() -> None:
    with unnamed() as output:
        output.write(b"100% \x1b[1mbold\n" * 10_000 + b"end")
        _, _, text = resolved((A, Run(PASS, output)))
    assert text.startswith("======== Output: A@1 ========\n100% \x1b[1mbold\n")
    assert "\nend\n======== Results" in text
    assert text.count("bold") == 10_000


def test_what_is_told_depends_on_the_level_and_on_the_end() -> None:
    transcript = Transcript()
    with pytest.raises(PhaseFailed):
        resolve([A], {key(A): Run(-1, error="why\x1b")}, transcript)
    assert told(transcript, Level.INFO) == ("======== Error: A@1 ========\nwhy\\x1b\nerr:  A@1\n")
    assert told(transcript, Level.ERROR) == ""
    assert "Results" in told(transcript, Level.ERROR, everything=True)


def sections() -> st.SearchStrategy[Sections]:
    return st.builds(passing, st.text("xyz", max_size=2), st.text("xyz", max_size=2))


@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.sampled_from([PASS, PASS, FAIL]),
            st.lists(sections(), min_size=1, max_size=3),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_no_end_stays_open(group: Sequence[tuple[bool, int, list[Sections]]]) -> None:
    done = [GroupElement(str(n), "1", optional=free) for n, (free, _, _) in enumerate(group)]
    runs = {
        key(each): Run(status, plans=tuple(plans))
        for each, (_, status, plans) in zip(done, group, strict=True)
    }
    try:
        elements, plan = resolve(done, runs, Transcript())
    except PhaseFailed:
        return
    taken = {element.id for element in elements}
    assert {each.id for each in done if not each.optional} <= taken
    for entry in plan.entries:
        assert entry.requires
        assert entry.providers
        assert {provider.id for provider in entry.providers} <= taken


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    plan = Plan(
        (
            PlanEntry(
                (GroupElement("a/b", "1"), GroupElement("e", "2", extension=True)),
                (Require("x", metadata={"deep": {"version": "1.*"}, "n": 1}), Require("x")),
            ),
        )
    )
    write_plan(tmp_path / "plan.toml", plan)
    assert read_plan(tmp_path / "plan.toml") == plan
    assert plan.of("a/b") == plan.entries[0].requires
    assert plan.of("e") == ()
    assert plan.without(["x"]) == Plan()
    assert plan.without(["y"]) == plan


def test_a_buildpack_is_given_its_entries(tmp_path: Path) -> None:
    write_buildpack_plan(tmp_path / "plan.toml", [Require("x", metadata={"a": 1}), Require("y")])
    assert (tmp_path / "plan.toml").read_text() == (
        '[[entries]]\n  name = "x"\n  [entries.metadata]\n    a = 1\n\n[[entries]]\n  name = "y"\n'
    )


def test_alternatives_follow_the_first_plan(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(
        '[[provides]]\nname = "x"\n[[requires]]\nname = "x"\nmetadata.a = 1\n'
        '[[or]]\n[[or.requires]]\nname = "y"\nversion = "1"\n[[or]]\n'
    )
    assert read_build_plan(tmp_path / "plan.toml") == (
        Sections(("x",), (Require("x", metadata={"a": 1}),)),
        Sections((), (Require("y", "1"),)),
        Sections(),
    )
    assert read_build_plan(tmp_path / "absent") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("provides = 1", "provides of .* is not an array"),
        ("provides = [1]", "an entry in provides of .* is not an object"),
        ("[[or]]\nrequires = [{name = 1}]", "name of requires of .* is not a string"),
        ("x", "is not TOML"),
    ],
)
def test_a_malformed_plan_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises(InvalidContent, match=expected):
        read_build_plan(tmp_path / "plan.toml")


def test_no_plan_is_worded_as_go_words_it(tmp_path: Path) -> None:
    path = tmp_path / "absent"
    with pytest.raises(
        InvalidContent, match=f"^failed to read plan file: open {path}: no such file or directory$"
    ):
        read_plan(path)
