"""The image that scripts/image.py makes runs, on a base with nothing but this machine's Python."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pytest

from ocistow.cli.checks.machine import LIBRARIES
from ocistow.lifecycle.labels import image_labels
from ocistow.testing.minimal import minimal_image

from ..conftest import Dockerd

ROOT = Path(__file__).parents[3]
NAME = "localhost/ocistow:test"
TIMEOUT = 120

pytestmark = [pytest.mark.docker, pytest.mark.slow]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The running Python with its standard library, and the shared libraries of all of it."""
    root = tmp_path_factory.mktemp("base")
    python = Path(sys.executable).resolve()
    standard = Path(os.__file__).parent
    put(root, [python])
    ignored = shutil.ignore_patterns(
        "__pycache__", "site-packages", "dist-packages", "test", "tests", "idlelib", "config-*"
    )
    place = root / standard.relative_to("/")
    shutil.copytree(standard, place, ignore=ignored, dirs_exist_ok=True)
    compiled = [file for name in LIBRARIES for file in files_of(name) if file.suffix == ".so"]
    put(root, shared([python, *place.glob("lib-dynload/*.so"), *compiled]))
    for directory in ("tmp", "var/lib", "usr/bin", "etc"):
        (root / directory).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    return root


def files_of(distribution: str) -> list[Path]:
    files = metadata.files(distribution) or ()
    return [Path(str(file.locate())) for file in files]


def shared(files: Iterable[Path]) -> set[Path]:
    told = subprocess.run(["ldd", *files], capture_output=True, text=True, timeout=TIMEOUT).stdout
    return {Path(path) for path in re.findall(r"(/\S+) \(0x", told)}


def put(root: Path, files: Iterable[Path]) -> None:
    for file in files:
        target = root / file.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)


def ran(dockerd: Dockerd, *arguments: str) -> str:
    """Run a container without a network; return what it prints, and show what it complains of."""
    try:
        return dockerd.run("run", "--rm", "--network=none", *arguments)
    except subprocess.CalledProcessError as error:
        pytest.fail(f"status {error.returncode}: {error.stdout} {error.stderr}")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, base: Path, dockerd: Dockerd) -> str:
    """Made in a store, and published to a daemon."""
    store = tmp_path_factory.mktemp("store") / "store"
    python = str(Path(sys.executable).resolve())
    script = [sys.executable, str(ROOT / "scripts" / "image.py")]
    subprocess.run(
        [*script, str(base), NAME, "--store", str(store), "--python", python],
        check=True,
        timeout=TIMEOUT,
    )
    code = "from ocistow.cli.main import main; main()"
    publish = ["publish", "--docker-host", dockerd.host, NAME, f"docker-daemon:{NAME}"]
    subprocess.run(
        [sys.executable, "-c", code, "--store", str(store), *publish], check=True, timeout=TIMEOUT
    )
    return NAME


def test_it_runs_as_nobody_special(image: str, dockerd: Dockerd) -> None:
    assert ran(dockerd, image, "--version") == "ocistow 0.1.0"
    assert dockerd.run("inspect", "--format", "{{.Config.User}}", image) == "1000:1000"
    python = str(Path(sys.executable).resolve())
    code = (
        "import os, pwd; home = pwd.getpwuid(os.getuid()).pw_dir\n"
        "print(home, *(os.access(place, os.W_OK) for place in (home, '/oci', '/var/lib/ocistow')))"
    )
    assert ran(dockerd, f"--entrypoint={python}", image, "-c", code) == "/home/cnb True True True"


def test_the_phases_are_where_platforms_run_them(image: str, dockerd: Dockerd) -> None:
    how = ("--env=CNB_PLATFORM_API=0.15", "--entrypoint=/cnb/lifecycle/rebaser")
    assert ran(dockerd, *how, image, "-version")


def test_a_platform_reads_which_apis_the_phases_know(image: str, dockerd: Dockerd) -> None:
    labels = json.loads(dockerd.run("inspect", "--format", "{{json .Config.Labels}}", image))
    assert labels == image_labels()
    assert json.loads(labels["io.buildpacks.lifecycle.apis"])["platform"]["supported"][-1] == "0.15"


def test_a_phase_finds_an_image_in_a_store(image: str, dockerd: Dockerd, tmp_path: Path) -> None:
    for name in ("run", "app"):
        minimal_image(name).write_to(tmp_path / "oci" / "example.com" / name / "latest")
    (tmp_path / "layers").mkdir()
    ran(
        dockerd,
        "--user=0",
        "--env=CNB_PLATFORM_API=0.15",
        f"--volume={tmp_path}/oci:/oci",
        f"--volume={tmp_path}/layers:/layers",
        "--entrypoint=/cnb/lifecycle/analyzer",
        image,
        "-oci",
        "-run-image=example.com/run",
        "example.com/app",
    )
    assert "example.com/run" in (tmp_path / "layers" / "analyzed.toml").read_text()


@pytest.mark.fuse
def test_it_mounts_where_it_may(fuse: None, image: str, dockerd: Dockerd) -> None:
    how = ("--user=0", "--cap-add=SYS_ADMIN", "--device=/dev/fuse", "--tmpfs=/var/lib/ocistow")
    python = str(Path(sys.executable).resolve())
    command = ("mount", "/oci", "--", python, "-c", "import os; print(os.path.ismount('/oci'))")
    assert ran(dockerd, *how, image, *command) == "True"
