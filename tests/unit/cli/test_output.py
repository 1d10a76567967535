import io

import pytest

from ocistow.cli import output
from ocistow.cli.progress import Progress
from ocistow.oci.descriptor import OCI_LAYER, Descriptor
from ocistow.oci.digest import Digest


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


LAYER = Descriptor(OCI_LAYER, Digest("sha256", "0" * 64), 1000)
OTHER = Descriptor(OCI_LAYER, Digest("sha256", "1" * 64), 3000)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bar_appears_after_a_second_and_goes_away() -> None:
    clock, stream = Clock(), Terminal()
    with Progress("auto", stream, clock) as progress:
        progress.total = 4000
        progress(LAYER, 500)
        assert stream.getvalue() == ""
        clock.now = 1.5
        progress(OTHER, 1500)
        shown = stream.getvalue()
        assert "50%" in shown
        assert "2.0 kB of 4.0 kB" in shown
        progress(OTHER, 1600)
        assert stream.getvalue() == shown, "drawn more than ten times a second"
    assert stream.getvalue().endswith("\r\x1b[K")


def test_a_blob_that_starts_again_is_not_counted_twice() -> None:
    clock, stream = Clock(), io.StringIO()
    with Progress("json", stream, clock) as progress:
        progress.total = 1000
        for clock.now, done in enumerate((900, 0, 400, 1000)):
            progress(LAYER, done)
    lines = stream.getvalue().splitlines()
    assert lines[0] == '{"type": "progress", "done": 900, "total": 1000}'
    assert [line.split(", ")[1] for line in lines] == [
        f'"done": {done}' for done in (900, 0, 400, 1000, 1000)
    ]


@pytest.mark.parametrize("mode", ["auto", "none"])
def test_nothing_is_said_where_nobody_looks(mode: str) -> None:
    clock, stream = Clock(), io.StringIO()
    with Progress(mode, stream, clock) as progress:
        progress.total = 1000
        clock.now = 100
        progress(LAYER, 500)
    assert stream.getvalue() == ""
