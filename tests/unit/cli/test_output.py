import io
from collections.abc import Iterator

import pytest

from ocistow.cli import output


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (72_090_000, "72.1 MB"),
        (10**9, "1.0 GB"),
        (2**63 - 1, "9.2 EB"),
    ],
)
def test_sizes_are_decimal_and_short(size: int, text: str) -> None:
    assert output.human(size) == text


def test_tables_line_up(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("NAME", "SIZE"), [["a", "1"], ["longer", "1000000"]], right=[1])
    assert capsys.readouterr().out == "NAME       SIZE\na             1\nlonger  1000000\n"


def test_long_tables_are_printed_while_they_come(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[str] = []

    def rows() -> Iterator[list[str]]:
        for number in range(3 * output.AT_ONCE):
            if number % output.AT_ONCE == 1:
                seen.append(capsys.readouterr().out)
            yield [str(10**7) if number == output.AT_ONCE else "1", "x"]

    output.table(("N", "X"), rows(), right=[0])
    assert [len(text.splitlines()) for text in seen] == [0, output.AT_ONCE + 1, output.AT_ONCE]
    assert seen[1].startswith("N  X\n1  x\n")
    assert seen[2].startswith("10000000  x\n       1  x\n")
    assert capsys.readouterr().out.endswith("\n       1  x\n")


@pytest.mark.parametrize("count", [0, 1, 3, output.AT_ONCE + 1])
def test_lists_are_json_like_any_other(capsys: pytest.CaptureFixture[str], count: int) -> None:
    items: list[dict[str, object]] = [{"n": n, "list": ["a\n", {}]} for n in range(count)]
    output.listing("items", iter(items))
    listed = capsys.readouterr().out
    output.document({"items": items})
    assert listed == capsys.readouterr().out


def test_what_acts_on_a_terminal_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("NAME",), [["\x1b[2Jx\ny"]], right=[])
    assert capsys.readouterr().out == "NAME\n\\x1b[2Jx\\ny\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [("NO_COLOR", "1", False), ("NO_COLOR", "", True), ("TERM", "dumb", False)],
)
def test_colours_are_for_terminals_that_want_them(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, expected: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(variable, value)
    assert output.has_colours(Terminal()) is expected
    assert not output.has_colours(io.StringIO())
