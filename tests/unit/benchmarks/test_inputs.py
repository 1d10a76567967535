"""The numbers of the simulation that can be counted are counted."""

import os
import subprocess
from pathlib import Path

import pytest

from benchmarks.simulation.inputs import Fleet, Measured
from ocistow.bench.processes import ENVIRONMENT, OCISTOW
from ocistow.testing.images import image_layout
from ocistow.testing.population import populate
from ocistow.testing.registry import Registry

RUN, ALIKE = 4, 10  # layers of the run image, and those of both builds above it


@pytest.fixture
def builds(tmp_path: Path) -> tuple[Path, Path]:
    """Two builds of an application, of which one layer, the config and the manifest differ."""
    layers = Fleet().layers
    assert layers == RUN + ALIKE + 1
    first, second = tmp_path / "first", tmp_path / "second"
    for build, path in enumerate((first, second)):
        run = image_layout(path, seed=1, layers=RUN, tag="run")
        alike = image_layout(path, seed=2, layers=ALIKE, base=run, tag="alike")
        image_layout(path, seed=3 + build, layers=1, base=alike)
    return first, second


def test_requests_of_pushes_and_pulls(tmp_path: Path, builds: tuple[Path, Path]) -> None:
    measured = Measured()
    here, there = tmp_path / "here", tmp_path / "there"
    with Registry() as registry:

        def requests(store: Path, *arguments: str) -> int:
            registry.requests.clear()
            command = [*OCISTOW, "--store", str(store), *arguments]
            subprocess.run(command, env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
            return len(registry.requests)

        def push(build: int) -> int:
            requests(here, "add", f"oci:{builds[build]}:latest", f"h.example/app:{build}")
            target = f"docker://{registry.host}/app:{build}"
            return requests(here, "publish", f"h.example/app:{build}", target)

        def pull(build: int) -> int:
            source = f"docker://{registry.host}/app:{build}"
            return requests(there, "add", source, f"h.example/app:{build}")

        assert push(0) == measured.first_push_requests
        assert push(1) == measured.push_requests
        assert pull(0) == measured.first_pull_requests
        assert pull(1) == measured.pull_requests


def test_inodes_of_a_name(tmp_path: Path) -> None:
    names = 300
    populate(tmp_path / "store", names=names, blobs=3 * names)
    inodes = {
        os.lstat(os.path.join(directory, name)).st_ino
        for directory, below, files in os.walk(tmp_path / "store")
        for name in (*below, *files)
    }
    assert len(inodes) / names == pytest.approx(Measured().inodes, rel=0.1)
