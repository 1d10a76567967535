"""Layouts of ours, plain and on a mount, as Go's lifecycle finds them."""

import os
import subprocess
import tomllib
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from ocistow.lifecycle.files.labels import LifecycleMetadata
from ocistow.lifecycle.targets.layout import LayoutTarget, open_layouts
from ocistow.testing.apps import make_app, make_run_image
from ocistow.testing.images import Media
from ocistow.testing.mounts import mounted


@pytest.fixture(params=["plain", "mount"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Path]:
    if request.param == "plain":
        yield tmp_path / "oci"
        return
    request.getfixturevalue("fuse")
    with mounted(tmp_path / "store", tmp_path / "mnt") as mount:
        yield mount.path


@pytest.fixture
def target(directory: Path) -> Generator[LayoutTarget]:
    with open_layouts(directory) as target:
        yield target


@pytest.mark.parametrize("media", ["oci", "docker"])
def test_gos_analyzer_finds_our_images(
    target: LayoutTarget, real: Callable[[str], Path], tmp_path: Path, media: Media
) -> None:
    labels = {"io.buildpacks.base.distro.name": "debian"}
    make_run_image(target, "cnb/run:1", tmp_path / "1", seed=1, labels=labels, media=media)
    make_app(target, "app", "cnb/run:1", metadata=LifecycleMetadata(config="sha256:1"))
    (tmp_path / "layers").mkdir()
    subprocess.run(
        [
            real("analyzer"),
            "-layout",
            *("-layout-dir", target.directory),
            *("-layers", tmp_path / "layers"),
            *("-run-image", "cnb/run:1"),
            "app",
        ],
        env={**os.environ, "CNB_PLATFORM_API": "0.15", "CNB_EXPERIMENTAL_MODE": "quiet"},
        check=True,
        timeout=60,
    )
    analyzed = tomllib.loads((tmp_path / "layers/analyzed.toml").read_text())
    for table, reference in (("image", "app"), ("run-image", "cnb/run:1")):
        identifier = analyzed[table]["reference"]
        with target.find(reference) as image, target.find(identifier) as again:
            assert image is not None
            assert again is not None
            assert identifier == image.identifier
            assert again.root == image.root
    assert analyzed["metadata"]["config"]["sha"] == "sha256:1"
    assert analyzed["run-image"]["target"]["distro"]["name"] == "debian"
