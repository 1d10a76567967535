"""`ocistow bench` where nothing is measured: what it refuses, and runs that it compares."""

import json
from pathlib import Path

import pytest

from ocistow.bench.machine import Machine
from ocistow.bench.measure import Result
from ocistow.bench.processes import Sample
from ocistow.bench.report import Report, document

from .conftest import Ocistow


def written(path: Path, cores: int, scenario: str = "image", what: str = "oci:app") -> str:
    machine = Machine("a processor", cores, 24 << 30, "6.1", "ext4", "", {"python": "3.11"})
    samples = {"ocistow": [Sample(cores, 0, 0)], "daemon": [Sample(4, 0, 0)]}
    results = [Result(scenario, "first build", samples)]
    path.write_text(document(Report("2026", 1, False, machine, results, {}, what)))
    return str(path)


def test_runs_of_different_machines_are_compared_with_a_warning(
    tmp_path: Path, run: Ocistow
) -> None:
    old, new = written(tmp_path / "old", 2), written(tmp_path / "new", 8)
    done = run("bench", "--compare", old, new)
    warning, cores = done.stderr.splitlines()
    assert warning.startswith("warning: these runs are of different machines")
    assert cores == "  cores: 2; now 8"
    assert "first build  ocistow  2.00 s  8.00 s   0.25" in done.stdout
    shown = json.loads(run("bench", "--json", "--compare", old, new).stdout)
    assert shown["differences"] == [{"what": "cores", "old": "2", "new": "8"}]
    assert [change["ratio"] for change in shown["changes"]] == [0.25, 1.0]


def test_runs_of_different_images_are_compared_with_a_warning(tmp_path: Path, run: Ocistow) -> None:
    old, new = written(tmp_path / "old", 2), written(tmp_path / "new", 2, what="oci:\x1b[2J")
    done = run("bench", "--compare", old, new)
    assert "measured different images" in done.stderr
    assert "\x1b" not in done.stderr


def test_runs_of_one_machine_are_compared_without_a_warning(tmp_path: Path, run: Ocistow) -> None:
    old = written(tmp_path / "old", 2)
    done = run("bench", "--compare", old, old)
    assert done.stderr == ""
    assert "within its range" in done.stdout


def test_runs_without_a_common_scenario_are_refused(tmp_path: Path, run: Ocistow) -> None:
    old, new = written(tmp_path / "old", 2), written(tmp_path / "new", 2, "other")
    done = run("bench", "--compare", old, new)
    assert done.returncode == 65
    assert done.stderr == f"ocistow: {old} and {new} have no scenario in common\n"


@pytest.mark.parametrize(
    ("arguments", "refused"),
    [
        (["app", "--compare", "a", "b"], "--compare measures nothing"),
        (["--html", "page.html", "--compare", "a", "b"], "--compare measures nothing"),
        (["app", "--quick"], "--quick is about the images that are made without SOURCE"),
        (["--rounds", "0"], "0 is not in the range"),
        (["--only", "podman"], "'podman' is not one of"),
        (["--directory", "/nothing"], "'/nothing' does not exist"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str], refused: str, run: Ocistow) -> None:
    done = run("bench", *arguments)
    assert done.returncode == 2
    assert refused in done.stderr


@pytest.mark.parametrize("option", ["--html", "--output"])
def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(
    option: str, tmp_path: Path, run: Ocistow
) -> None:
    never = f"--docker-host=unix://{tmp_path / 'never-asked'}"
    done = run("bench", never, option, str(tmp_path / "no" / "file"))
    assert done.returncode == 74
    assert "no: No such file or directory" in done.stderr


def test_without_a_daemon_it_is_told_which_was_asked(tmp_path: Path, run: Ocistow) -> None:
    socket = tmp_path / "docker.sock"
    done = run("bench", f"--docker-host=unix://{socket}", "--directory", str(tmp_path))
    assert done.returncode == 75
    assert done.stderr == f"ocistow: docker daemon at unix://{socket}: no such file or directory\n"
    assert list(tmp_path.iterdir()) == []
