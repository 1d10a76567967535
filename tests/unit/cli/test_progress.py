"""What is shown of a copy that goes on: JSON lines, and bars on a real terminal."""

import io
import json
import re
import sys
from pathlib import Path

import pytest

from ocistow.cli.bars import Screen, frame
from ocistow.cli.progress import Display, reading
from ocistow.cli.track import Track
from ocistow.oci.descriptor import OCI_LAYER, Descriptor
from ocistow.oci.digest import Digest
from ocistow.publish.sink import Action
from ocistow.testing.faults import Fault, Hang
from ocistow.testing.images import image_layout
from ocistow.testing.registry import Registry
from ocistow.testing.terminal import Terminal

from .conftest import Ocistow, environment

LAYER = Descriptor(OCI_LAYER, Digest("sha256", "0" * 64), 1_000_000)
OTHER = Descriptor(OCI_LAYER, Digest("sha256", "1" * 64), 3_000_000)
SMALL = Descriptor(OCI_LAYER, Digest("sha256", "2" * 64), 0)
WIDE = Screen(columns=100, rows=24, unicode=False, colours=False)


def track() -> Track:
    """Return a copy after four seconds, in the middle of two blobs."""
    made = Track("docker://e.x/app:1", 0.0, total=4_000_000)
    made.moves(LAYER, 500_000, 1.0)
    made.moves(OTHER, 1_500_000, 4.0)
    return made


def test_a_frame_has_the_whole_and_each_blob() -> None:
    made = track()
    made.ends(SMALL, Action.PRESENT, 4.0)
    bar = "###############---------------"
    assert frame([made], WIDE, 4.0) == [
        "docker://e.x/app:1  1 present",
        f"                {bar}  50%  2.0 of 4.0 MB  500.0 kB/s  0:04 left",
        f"  000000000000  {bar}  50%  500.0 kB of 1.0 MB",
        f"  111111111111  {bar}  50%  1.5 of 3.0 MB",
    ]


def test_a_blob_that_ended_is_counted() -> None:
    made = track()
    made.ends(LAYER, Action.MOUNTED, 4.0)
    made.ends(OTHER, Action.SENT, 4.0)
    name, whole = frame([made], WIDE, 4.0)
    assert "100%" in whole
    assert name.endswith("1 sent, 1 mounted")


def test_a_blob_that_starts_again_is_not_counted_twice() -> None:
    made = track()
    made.moves(OTHER, 0, 4.5)
    assert made.done == 500_000
    made.moves(OTHER, 3_000_000, 4.6)
    made.ends(OTHER, Action.SENT, 4.7)
    assert made.done == 3_500_000


def test_when_nothing_moves_it_is_said_what_is_awaited() -> None:
    made = track()
    made.what = "waiting for the other side"
    assert "waiting" not in frame([made], WIDE, 4.9)[1]
    assert "waiting for the other side…" in frame([made], WIDE, 5.0)[1]
    assert frame([Track("a", 0.0)], WIDE, 0.0) == ["a", "  opening the image…"]


@pytest.mark.parametrize("columns", [10, 20, 40, 60, 79, 80, 200])
@pytest.mark.parametrize("rows", [1, 2, 3, 24])
def test_a_frame_fits_into_the_screen(columns: int, rows: int) -> None:
    tracks = [track(), track()]
    lines = frame(tracks, Screen(columns, rows, unicode=True, colours=True), 4.0)
    assert 1 <= len(lines) < max(2, rows)
    assert all(len(re.sub(r"\x1b\[\d+m", "", line)) < columns for line in lines)


def test_of_steps_all_that_were_done_tell_how_long_the_others_take() -> None:
    made = Track("measuring", 0.0, total=10, what="daemon: first build", noun="steps")
    assert frame([made], WIDE, 5.0)[1].endswith("0%  0 of 10 steps")
    made.advances(4, 40.0)
    title, bar = frame([made], WIDE, 55.0)
    assert title == "measuring  daemon: first build"
    assert bar.endswith("40%  4 of 10 steps  0:45 left")
    made.advances(6, 100.0)
    assert frame([made], WIDE, 100.0)[1].endswith("100%  10 of 10 steps")


def test_lines_tell_of_every_blob(tmp_path: Path, run: Ocistow) -> None:
    image = image_layout(tmp_path / "layout")
    done = run("add", "oci:layout", "a", "--progress", "json")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert {line["name"] for line in lines} == {"oci:layout"}
    ended = {line["digest"] for line in lines if line.get("action") == "sent"}
    assert ended == {str(digest) for digest in (*image.layers, image.config, image.manifest)}
    wholes = [line for line in lines if line["type"] == "progress"]
    assert wholes[-1]["done"] == wholes[-1]["total"] > 0


def test_what_was_read_of_a_stream_is_said_twice_a_second() -> None:
    stream, times = io.StringIO(), iter([0.0, 0.1, 0.6, 0.6, 1.0, 1.2, 1.2])
    with Display("json", stream) as display:
        watch = reading(display.track("-"), clock=lambda: next(times))
        for done in (1_000, 2_000_000, 3_000_000, 4_000_000):
            watch(done)
    said = [json.loads(line)["what"] for line in stream.getvalue().splitlines()]
    assert said == ["reading the image, 2.0 MB", "reading the image, 4.0 MB"]


@pytest.mark.parametrize("mode", ["auto", "none"])
def test_nothing_is_said_where_nobody_looks(mode: str) -> None:
    stream = io.StringIO()
    with Display(mode, stream) as display:
        assert display.track("a") is None
    assert stream.getvalue() == ""


def test_bars_on_a_terminal_go_away_when_interrupted(tmp_path: Path, run: Ocistow) -> None:
    image_layout(tmp_path / "layout", layers=1, layer_size=100_000)
    assert run("add", "oci:layout", "e.x/app:1").returncode == 0
    with Registry() as registry:
        registry.faults.append(Fault("PUT", "/blobs/", Hang(), times=None))
        places = [f"docker://{registry.host}/{name}:1" for name in ("a", "b")]
        command = [sys.executable, "-m", "ocistow.cli", "publish", "e.x/app:1", *places]
        with Terminal(command, environment(tmp_path / "store", TERM="xterm")) as terminal:
            terminal.wait_until(
                lambda screen: sum("waiting for the other side…" in s for s in screen.lines) == 2
            )
            assert [line.split()[0] for line in terminal.screen.lines[::2]] == places
            assert "━" in terminal.output or "#" in terminal.output
            terminal.type("\x03")
            assert terminal.wait() == 130
            assert terminal.screen.lines[-1] == "ocistow: interrupted"
            assert set(terminal.screen.lines[:-1]) <= {"", "^C"}
        assert registry.repositories.tags("a") == {}
