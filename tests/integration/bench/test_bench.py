"""`ocistow bench` on a small image, with a real daemon and real registries."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ocistow.bench.comparison import STEPS
from ocistow.testing.images import image_layout

from ..conftest import Dockerd, program

pytestmark = [pytest.mark.docker, pytest.mark.registry, pytest.mark.tools, pytest.mark.fuse]


@pytest.fixture
def command(tmp_path: Path, dockerd: Dockerd) -> list[str]:
    for name in ("docker", "docker-registry", "skopeo", "fusermount3"):
        program(name)
    image = image_layout(tmp_path / "image", layers=4, layer_size=20_000)
    return [
        *(sys.executable, "-m", "ocistow.cli", "--store", str(tmp_path / "store"), "bench"),
        *("--docker-host", dockerd.host, "--directory", str(tmp_path), "--rounds", "1"),
        f"oci:{image.path}:latest",
    ]


def images_of(dockerd: Dockerd) -> set[str]:
    return set(dockerd.run("images", "--all", "--quiet").split())


def left_behind(dockerd: Dockerd, tmp_path: Path) -> list[str]:
    images = dockerd.run("images", "--all", "--format", "{{.Repository}}").splitlines()
    found = [name for name in images if "ocistow-bench" in name or "/bench/" in name]
    return [*found, *(path.name for path in tmp_path.glob("ocistow-bench-*"))]


def test_all_ways_are_measured_and_nothing_stays(
    command: list[str], dockerd: Dockerd, tmp_path: Path
) -> None:
    before = images_of(dockerd)
    output, html = tmp_path / "run.json", tmp_path / "run.html"
    command += ["--output", str(output), "--html", str(html), "--progress", "json"]
    (tmp_path / "config.json").write_text('{"credsStore": "of-somebody"}')
    helper, asked = tmp_path / "docker-credential-of-somebody", tmp_path / "asked"
    helper.write_text(f"#!/bin/sh\n: > {asked}\n")
    helper.chmod(0o755)
    foreign = {
        **os.environ,
        "OCISTOW_STORE": str(tmp_path / "nothing"),
        "CNB_USE_LAYOUT": "true",
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "DOCKER_CONFIG": str(tmp_path),
        "REGISTRY_AUTH_FILE": str(tmp_path / "config.json"),
    }
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=foreign)
    assert done.returncode == 0, done.stderr
    assert not asked.exists()  # for a password for a registry of its own
    document = json.loads(output.read_text())
    times = {r["step"]: r for r in document["results"] if r["scenario"] == "image"}
    for step in (*STEPS, "to a registry"):
        assert set(times[step]["contestants"]) == {
            *("ocistow", "daemon", "full", "layout", "uncompressed", "registry")
        }
    assert document["skipped"] == {}
    moved = {r["step"]: r for r in document["results"] if r["scenario"] == "image, moved"}
    for way in moved["second build"]["contestants"].values():
        assert way["median"] > 1000
    written = {r["step"]: r for r in document["results"] if r["scenario"] == "image, written"}
    first = written["first build"]["contestants"]  # only one of them sends the run image
    assert first["daemon"]["median"] < first["full"]["median"]
    assert "second build" in done.stdout
    assert "<svg" in html.read_text()
    assert images_of(dockerd) == before
    assert left_behind(dockerd, tmp_path) == []

    compared = [*command[:5], "bench", "--compare", str(output), str(output)]
    shown = subprocess.run(compared, capture_output=True, text=True, check=True).stdout
    assert " 1.00  within its range" in shown


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_nothing(
    command: list[str], dockerd: Dockerd, tmp_path: Path, sent: signal.Signals, status: int
) -> None:
    before = images_of(dockerd)
    with subprocess.Popen(
        [*command, "--only", "daemon", "--progress", "json"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        heard: list[str] = []
        for line in process.stderr:
            heard.append(line)
            if "ocistow: first build" in line:
                break
        process.send_signal(sent)
        heard += process.communicate()[1].splitlines()
    assert process.returncode == status, heard
    assert images_of(dockerd) == before
    assert left_behind(dockerd, tmp_path) == []
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
