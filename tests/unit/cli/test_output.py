import io

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
