"""Command lines are read as Go reads them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocistow.lifecycle.golang.flags import Flag, Value, boolean, decimal, parse, quote, usage
from ocistow.oci.errors import PhaseFailed

FLAGS = (
    Flag("app", "path to app directory", "/workspace"),
    Flag("cache", ""),
    Flag("daemon", "export to docker daemon", False),
    Flag("n", "one letter", False),
    Flag("tag", "additional tags", ()),
    Flag("uid", "UID of user", 0),
)


@pytest.mark.parametrize(
    ("arguments", "name", "value", "rest"),
    [
        (["-app", "x"], "app", "x", ()),
        (["-app=x=y"], "app", "x=y", ()),
        (["--app", "x", "y"], "app", "x", ("y",)),
        (["--app=", "y"], "app", "", ("y",)),
        (["-app", "-daemon"], "app", "-daemon", ()),
        (["-app", "--", "--", "-x"], "app", "--", ("-x",)),
        (["-app", "a", "-app", "b"], "app", "b", ()),
        (["-daemon", "false"], "daemon", True, ("false",)),
        (["-daemon=F", "x", "-daemon"], "daemon", False, ("x", "-daemon")),
        (["-tag", "a", "-tag=b"], "tag", ("a", "b"), ()),
        (["-", "-daemon"], "daemon", False, ("-", "-daemon")),
        (["", "-daemon"], "daemon", False, ("", "-daemon")),
        (["-uid", "-1"], "uid", -1, ()),
        (["-uid", "0x1F"], "uid", 31, ()),
        (["-uid", "+0b1_1"], "uid", 3, ()),
        (["-uid", "0o17"], "uid", 15, ()),
        (["-uid", "017"], "uid", 15, ()),
        (["-uid", "0_7"], "uid", 7, ()),
        (["-uid", "-9223372036854775808"], "uid", -(2**63), ()),
    ],
)
def test_a_flag_in_every_spelling(
    arguments: list[str], name: str, value: Value, rest: tuple[str, ...]
) -> None:
    parsed = parse(FLAGS, arguments)
    assert parsed.values[name] == value
    assert type(parsed.values[name]) is type(value)
    assert parsed.positional == rest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-x"], "flag provided but not defined: -x"),
        (["--x=1"], "flag provided but not defined: -x"),
        (["-uid"], "flag needs an argument: -uid"),
        (["-tag"], "flag needs an argument: -tag"),
        (["---x"], "bad flag syntax: ---x"),
        (["-="], "bad flag syntax: -="),
        (["--=x"], "bad flag syntax: --=x"),
        (["-daemon="], 'invalid boolean value "" for -daemon: parse error'),
        (["-daemon=yes"], 'invalid boolean value "yes" for -daemon: parse error'),
        (["-uid", "1_"], 'invalid value "1_" for flag -uid: parse error'),
        (["-uid", "08"], 'invalid value "08" for flag -uid: parse error'),
        (["-uid", " 1"], 'invalid value " 1" for flag -uid: parse error'),
        (["-uid", "٣"], 'invalid value "٣" for flag -uid: parse error'),
        (["-uid="], 'invalid value "" for flag -uid: parse error'),
        (
            ["-uid", "9223372036854775808"],
            'invalid value "9223372036854775808" for flag -uid: value out of range',
        ),
        (["-uid", "9" * 70], f'invalid value "{"9" * 70}" for flag -uid: value out of range'),
    ],
)
def test_a_wrong_flag_is_refused_in_the_words_of_go(arguments: list[str], message: str) -> None:
    with pytest.raises(PhaseFailed) as failed:
        parse(FLAGS, arguments)
    assert str(failed.value) == message
    assert failed.value.code == 2


@pytest.mark.parametrize("asked", ["-h", "--h", "-help", "--help", "-h=1"])
def test_who_asks_for_help_gets_it_before_what_follows_is_read(asked: str) -> None:
    assert parse(FLAGS, [asked, "-x"]).wants_help
    assert not parse(FLAGS, ["name", asked]).wants_help


def test_the_usage_is_go_s() -> None:
    flags = (*FLAGS[::-1], Flag("gid", "GID", 7), Flag("list", "", ("a", "b")), Flag("q", "", 'a"'))
    assert usage(flags) == (
        "Usage of lifecycle:\n"
        "  -app string\n"
        '    \tpath to app directory (default "/workspace")\n'
        "  -cache string\n"
        "    \t\n"
        "  -daemon\n"
        "    \texport to docker daemon\n"
        "  -gid int\n"
        "    \tGID (default 7)\n"
        "  -list value\n"
        "    \t (default [a b])\n"
        "  -n\tone letter\n"
        "  -q string\n"
        '    \t (default "a\\"")\n'
        "  -tag value\n"
        "    \tadditional tags\n"
        "  -uid int\n"
        "    \tUID of user\n"
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a b", '"a b"'),
        ('"\\', '"\\"\\\\"'),
        ("\x01\n\t\x7f", r'"\x01\n\t\x7f"'),
        ("é\u200b\U0001f600\U000e0001", '"é\\u200b\U0001f600\\U000e0001"'),
        ("\udcff", r'"\xff"'),
    ],
)
def test_a_value_is_quoted_as_go_does(text: str, shown: str) -> None:
    assert quote(text) == shown


def test_values_of_the_environment_are_read_as_go_reads_them() -> None:
    assert [boolean(text) for text in ("1", "t", "True", "TRUE")] == [True] * 4
    assert [boolean(text) for text in ("0", "f", "False", "FALSE")] == [False] * 4
    assert [boolean(text) for text in ("", "yes", "tRue", " 1", "2")] == [None] * 5
    assert [decimal(text) for text in ("+07", "-3", "0", str(2**63 - 1))] == [7, -3, 0, 2**63 - 1]
    assert [decimal(text) for text in ("", "-", "0x1", "1_0", "٣", " 1", "9" * 5000)] == [None] * 7


_TEXT = st.text("ab-=:/ é\n", max_size=5)
_SETTINGS = st.one_of(
    st.tuples(st.sampled_from(["app", "cache", "tag"]), _TEXT),
    st.tuples(st.just("daemon"), st.sampled_from(["true", "false", "1", "F"])),
    st.tuples(st.just("uid"), st.integers(-(2**63), 2**63 - 1).map(str)),
)


@given(
    st.lists(st.tuples(_SETTINGS, st.sampled_from(["-", "--"]), st.booleans()), max_size=5),
    st.lists(_TEXT, max_size=3),
)
def test_what_is_written_is_read(
    settings: list[tuple[tuple[str, str], str, bool]], rest: list[str]
) -> None:
    arguments: list[str] = []
    expected: dict[str, Value] = {flag.name: flag.default for flag in FLAGS}
    for (name, text), dashes, joined in settings:
        equals = joined or name == "daemon"
        arguments += [f"{dashes}{name}={text}"] if equals else [f"{dashes}{name}", text]
        before = expected[name]
        if isinstance(before, bool):
            expected[name] = text in ("true", "1")
        elif isinstance(before, int):
            expected[name] = int(text)
        else:
            expected[name] = (*before, text) if isinstance(before, tuple) else text
    parsed = parse(FLAGS, [*arguments, "--", *rest])
    assert (parsed.values, parsed.positional) == (expected, tuple(rest))
    assert parsed.given == {name for (name, _), _, _ in settings}


@given(st.lists(st.text("-=abdemonuitgpx01 é", max_size=8), max_size=5))
def test_no_command_line_does_more_than_be_refused(arguments: list[str]) -> None:
    with suppress(PhaseFailed):
        rest = parse(FLAGS, arguments).positional
        assert not rest or list(rest) == arguments[-len(rest) :]
