"""The demo leaves nothing behind, however it ends."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ocistow

ROOT = Path(__file__).parents[3]
DEMO = ROOT / "scripts" / "demo.py"
SOURCES = Path(ocistow.__file__).parents[1]

pytestmark = [pytest.mark.fuse, pytest.mark.slow, pytest.mark.usefixtures("fuse")]


def start(directory: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, DEMO],
        env={**os.environ, "PYTHONPATH": str(SOURCES), "TMPDIR": str(directory)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def strays(directory: Path) -> list[str]:
    """Return the command lines of processes that work below a directory."""
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if str(directory) in line or (process / "cwd").readlink().is_relative_to(directory):
                found.append(line)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # gone meanwhile, or somebody else's
    return found


def assert_nothing_is_left(directory: Path) -> None:
    assert str(directory) not in Path("/proc/self/mountinfo").read_text()
    deadline = time.monotonic() + 60  # the kernel ends a mount a moment before its server is gone
    while (left := strays(directory)) and time.monotonic() < deadline:
        os.sched_yield()
    assert left == []
    assert list(directory.iterdir()) == []


def test_the_demo_shows_that_the_base_is_stored_once(tmp_path: Path) -> None:
    with start(tmp_path) as demo:
        output, _ = demo.communicate(timeout=100)
    assert demo.returncode == 0, output
    assert "without sharing: 3.00 times as much" in output
    assert ": 0 sent (0 B)" in output
    assert "a page is 23 bytes" in output
    assert re.search(r"apps:built: \d+ sent \([\d.]+ kB\)", output), output
    assert "Traceback" not in output
    assert_nothing_is_left(tmp_path)


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGTERM, "1. "),
        (signal.SIGINT, "$ ocistow add"),
        (signal.SIGTERM, "$ ocistow mount"),
        (signal.SIGINT, "$ ls"),
        (signal.SIGTERM, "$ mkdir"),
        (signal.SIGHUP, "$ ocistow du"),
        (signal.SIGINT, "5. "),
        (signal.SIGTERM, "$ ocistow publish"),
    ],
)
def test_an_interrupted_demo_leaves_nothing(
    tmp_path: Path, number: signal.Signals, moment: str
) -> None:
    with start(tmp_path) as demo:
        assert demo.stdout is not None
        seen = ""
        for line in demo.stdout:
            seen += line
            if line.strip().startswith(moment):
                break
        else:
            pytest.fail(f"{moment!r} did not come:\n{seen}")
        demo.send_signal(number)
        rest = demo.stdout.read()
        status = demo.wait(60)
    assert status == 128 + number, seen + rest
    assert "Traceback" not in rest
    assert_nothing_is_left(tmp_path)


def test_two_signals_leave_no_more_than_one(tmp_path: Path) -> None:
    with start(tmp_path) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if line.strip().startswith("$ ocistow mount"):
                break
        demo.send_signal(signal.SIGTERM)
        demo.send_signal(signal.SIGINT)
        demo.stdout.read()
        assert demo.wait(60) in (128 + signal.SIGTERM, 128 + signal.SIGINT)
    assert_nothing_is_left(tmp_path)
