"""`ocistow phase` and the programs that it installs."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from ocistow.lifecycle.program import PROGRAMS, VERBS

from .conftest import Ocistow

API = {"CNB_PLATFORM_API": "0.12"}
_COLOUR = re.compile(r"\x1b\[[\d;]*m")


@pytest.mark.parametrize("name", [*PROGRAMS, *VERBS])
def test_every_phase_is_there_by_both_of_its_names(run: Ocistow, name: str) -> None:
    done = run("phase", name, "-h", **API)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("Usage of lifecycle:\n")


def test_flags_reach_the_phase_as_they_are(run: Ocistow) -> None:
    done = run("phase", "analyze", "--uid=0x0", "-log-level", "debug", "--", "--", "-h", "x", **API)
    assert done.returncode == 3
    said = _COLOUR.sub("", done.stdout)
    assert "unconsumed flag-like positional arg: \n\t--\n" in said
    assert said.endswith("received 3 arguments, but expected 1\n")
    assert run("phase", "detect", "--help", **API).stderr.startswith("Usage of lifecycle")


def test_a_phase_reads_no_settings(run: Ocistow, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.mkdir()  # reading it fails for root, too
    done = run("phase", "detect", "-version", OCISTOW_CONFIG=str(file), **API)
    assert done.returncode == 0, done.stderr


def test_the_store_of_ocistow_is_that_of_the_phase(run: Ocistow, tmp_path: Path) -> None:
    done = run("--store", str(tmp_path / "s"), "phase", "export", "-h", **API)
    assert f'(default "{tmp_path / "s"}")' in done.stderr


@pytest.fixture
def programs(run: Ocistow, tmp_path: Path) -> Path:
    """Return a directory into which the programs were put."""
    done = run("phase", "install", "cnb/lifecycle")
    assert (done.returncode, done.stdout) == (0, "put 8 programs into cnb/lifecycle\n")
    return tmp_path / "cnb" / "lifecycle"


def start(program: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    environ = {"PYTHONPATH": "/none", "PYTHONWARNINGS": "error", **API, **more}
    return subprocess.run(
        [program, *arguments], env=environ, capture_output=True, text=True, timeout=60
    )


def test_installed_programs_run_by_their_names(programs: Path) -> None:
    assert {path.name for path in programs.iterdir()} == {*PROGRAMS, "lifecycle"}
    done = start(programs / "exporter")
    assert done.returncode == 3
    assert "at least one image argument is required" in done.stdout
    done = start(programs / "lifecycle", "restore", "x")
    assert done.returncode == 3
    assert "received unexpected Args" in done.stdout


def test_what_is_there_is_replaced_only_by_force(programs: Path, run: Ocistow) -> None:
    (programs / "launcher").write_text("static")
    assert run("phase", "install", str(programs)).returncode == 0  # what is ours may be there
    (programs / "analyzer").unlink()
    (programs / "analyzer").write_text("of another lifecycle")
    done = run("phase", "install", str(programs))
    assert done.returncode == 74
    assert f"{programs}/analyzer" in done.stderr
    assert (programs / "analyzer").read_text() == "of another lifecycle"
    assert run("phase", "install", "--force", str(programs)).returncode == 0
    assert os.readlink(programs / "analyzer") == "lifecycle"
    assert (programs / "launcher").read_text() == "static"


def test_another_multicall_program_is_not_overwritten(run: Ocistow, tmp_path: Path) -> None:
    (tmp_path / "lifecycle").write_text("of another lifecycle")
    assert run("phase", "install", ".").returncode == 74
    assert [path.name for path in tmp_path.iterdir()] == ["lifecycle"]
    assert run("phase", "install", "--force", ".").returncode == 0
    assert start(tmp_path / "builder", "-version").returncode == 0


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=str
)
def test_a_signal_ends_a_phase_without_a_traceback(
    programs: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        with subprocess.Popen(
            [
                programs / "analyzer",
                "-layers",
                tmp_path,
                "-run-image",
                f"{host}/run",
                f"{host}/app",
            ],
            env=API,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            silent.settimeout(60)
            connection, _ = silent.accept()  # it waits for an answer now
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
            connection.close()
    assert process.returncode == status
    assert out == ""
    assert err.strip() in ("", "ocistow: terminated", "ocistow: interrupted")


def test_nobody_reads_what_a_phase_says(programs: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        done = subprocess.run(
            [programs / "exporter"], env=API, stdout=closed, stderr=subprocess.PIPE, timeout=60
        )
    assert (done.returncode, done.stderr) == (141, b"")
