"""What phases say looks like what Go's lifecycle says."""

from __future__ import annotations

import io
import re
import threading

import pytest

from ocistow.lifecycle.console import Console, Level, duration
from ocistow.oci.errors import PhaseFailed


def test_everything_goes_to_stdout_with_its_colours() -> None:
    out, err = io.BytesIO(), io.BytesIO()
    console = Console(out, err)
    console.debug("Parsing inputs...")
    console.info("Reusing cache layer")
    console.warn("No cached data")
    console.error("failed to export: no\n")
    console.phase("ANALYZING")
    assert out.getvalue() == (
        b"Parsing inputs...\nReusing cache layer\n"
        b"\x1b[33;1mWarning: \x1b[0mNo cached data\n"
        b"\x1b[31;1mERROR: \x1b[0mfailed to export: no\n"
        b"\x1b[36m===> ANALYZING\x1b[0m\n"
    )
    assert err.getvalue() == b""


@pytest.mark.parametrize(
    ("level", "said"),
    [
        ("debug", ["D", "I", "Warning: W", "ERROR: E"]),
        ("info", ["I", "Warning: W", "ERROR: E"]),
        ("warn", ["Warning: W", "ERROR: E"]),
        ("Warning", ["Warning: W", "ERROR: E"]),
        ("ERROR", ["ERROR: E"]),
        ("fatal", []),
    ],
)
def test_what_is_less_grave_than_the_level_is_not_said(level: str, said: list[str]) -> None:
    out = io.BytesIO()
    console = Console(out, level=Level.parse(level))
    console.color = False
    console.debug("D")
    console.info("I")
    console.warn("W")
    console.error("E")
    assert out.getvalue().decode().splitlines() == said


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(PhaseFailed, match=r"^failed to parse log level: invalid level$") as failed:
        Level.parse("quiet")
    assert failed.value.code == 1


def test_without_colour_nothing_is_coloured_not_even_the_words_of_buildpacks() -> None:
    out, err = io.BytesIO(), io.BytesIO()
    console = Console(out, err)
    console.color = False
    console.warn("careful")
    console.write(b"\x1b[1;32mgreen\x1b[0m, \x1bMtwo, \x1b[@three\x1b[12", error=True)
    assert out.getvalue() == b"Warning: careful\n"
    assert err.getvalue() == b"green, two, three"


def test_words_of_others_do_not_act_on_a_terminal() -> None:
    out = io.BytesIO()
    Console(out).info("a\tb\n\x1b]0;title\x07\x9b2J\udcff")
    assert out.getvalue() == b"a\tb\n\\x1b]0;title\\x07\\x9b2J\\udcff\n"


def test_a_timer_says_when_it_ran_also_when_it_failed() -> None:
    out = io.BytesIO()
    with pytest.raises(ValueError, match="no"), Console(out).timer("Saving a..."):
        raise ValueError("no")
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)"
    assert re.fullmatch(
        rf"Timer: Saving a\.\.\. started at {stamp}\n"
        rf"Timer: Saving a\.\.\. ran for [\d.]+[µmn]?s and ended at {stamp}\n",
        out.getvalue().decode(),
    )


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_100, "1.1µs"),
        (2_200_000, "2.2ms"),
        (3_300_000_000, "3.3s"),
        (245_000_000_000, "4m5s"),
        (245_001_000_000, "4m5.001s"),
        (18_367_001_000_000, "5h6m7.001s"),
        (480_000_000_001, "8m0.000000001s"),
        (3_600_000_000_000, "1h0m0s"),
    ],
)
def test_durations_are_written_as_go_does(nanoseconds: int, text: str) -> None:
    assert duration(nanoseconds) == text


def test_messages_of_threads_are_not_torn() -> None:
    out = io.BytesIO()
    console = Console(out)

    def say(letter: str) -> None:
        for _ in range(50):
            console.info(letter * 99)

    threads = [threading.Thread(target=say, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = out.getvalue().decode().splitlines()
    assert len(lines) == 200
    assert all(line == line[0] * 99 for line in lines)
