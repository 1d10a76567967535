"""Builds one after the other, each of which starts from what the one before left."""

import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ocistow.lifecycle.analyze import analyze
from ocistow.lifecycle.console import Console, Level
from ocistow.lifecycle.export import export
from ocistow.lifecycle.images.image import Target
from ocistow.lifecycle.inputs import Inputs
from ocistow.lifecycle.platform_api import Version
from ocistow.lifecycle.restore import restore
from ocistow.lifecycle.targets.layout import LayoutTarget
from ocistow.lifecycle.targets.registry import RegistryTarget
from ocistow.testing.builds import BUILDPACKS, Build, build
from ocistow.testing.faults import Fault, Status
from ocistow.testing.images import image_layout
from ocistow.testing.registry import Registry

from ..conftest import DockerRegistry

Phase = Callable[[Inputs, Target, Console], object]
CACHED = ("all-types", "cached")


class Builds:
    """What is built again and again, into one directory of layouts."""

    def __init__(self, tmp_path: Path) -> None:
        self.made: Build = build(tmp_path / "build")
        self.layers = self.made.layers
        self._kept = shutil.copytree(self.layers, tmp_path / "kept", symlinks=True)
        image_layout(tmp_path / "oci" / "index.docker.io" / "example" / "run" / "latest")
        (tmp_path / "cache").mkdir()
        self.target = LayoutTarget(tmp_path / "oci")
        self.inputs = replace(
            self.made.inputs("example/app"),
            cache_dir=tmp_path / "cache",
            environ={"HOME": str(tmp_path)},
            layout=True,
            layout_dir=tmp_path / "oci",
            previous_image="example/app",
            run_image="example/run",
            uid=0,
            gid=0,
        )

    def run(self, phase: Phase, inputs: Inputs) -> str:
        out = io.BytesIO()
        console = Console(out, level=Level.INFO)
        console.color = False
        phase(inputs, self.target, console)
        return out.getvalue().decode()

    def start(self, inputs: Inputs) -> str:
        """Analyze and restore, into a directory that has nothing but a group."""
        shutil.rmtree(self.layers)
        self.layers.mkdir()
        (self.layers / "group.toml").write_text(BUILDPACKS.format(table="group"))
        return self.run(analyze, inputs) + self.run(restore, inputs)

    def finish(self, inputs: Inputs, change: str = "") -> str:
        """Put back what buildpacks wrote, perhaps with a change, and export that."""
        analyzed = (self.layers / "analyzed.toml").read_text()
        shutil.rmtree(self.layers)
        shutil.copytree(self._kept, self.layers, symlinks=True)
        (self.layers / "analyzed.toml").write_text(analyzed)
        if change:
            (self.layers / "samples_one" / change / "bin" / "program").write_text("changed")
        return self.run(export, inputs)


@pytest.mark.parametrize("kind", ["directory", "image"])
def test_builds_start_from_what_was_left(tmp_path: Path, kind: str) -> None:
    builds = Builds(tmp_path)
    with Registry() as registry:
        inputs = builds.inputs
        if kind == "image":
            inputs = replace(inputs, cache_dir=None, cache_image=f"{registry.host}/cache")
        builds.start(inputs)
        assert not (builds.layers / "samples_one").exists()
        first = builds.finish(inputs)
        for name in CACHED:
            assert f"Adding cache layer 'samples/one:{name}'" in first
        builds.start(inputs)
        for name in CACHED:
            program = builds.layers / "samples_one" / name / "bin" / "program"
            assert program.read_text() == f"of {name}"
        assert not (builds.layers / "samples_one" / "launched").exists()
        assert (builds.layers / "samples_one" / "launched.toml").exists()
        assert (builds.layers / "samples_one" / "launched.sbom.cdx.json").exists()
        second = builds.finish(inputs)
        for name in CACHED:
            assert f"Reusing cache layer 'samples/one:{name}'" in second
        assert "Adding" not in second.replace("Adding label", "")
        third = builds.finish(inputs, change="cached")
        assert "Adding cache layer 'samples/one:cached'" in third
        assert "Reusing cache layer 'samples/one:all-types'" in third
        builds.start(inputs)
        program = builds.layers / "samples_one" / "cached" / "bin" / "program"
        assert program.read_text() == "changed"


@pytest.mark.registry
@pytest.mark.parametrize("api", ["0.12", "0.13"])
def test_an_old_cache_image_is_deleted_below_0_13(
    tmp_path: Path, docker_registry: DockerRegistry, api: str
) -> None:
    builds = Builds(tmp_path)
    name = f"{docker_registry.host}/cache{api}"
    inputs = replace(
        builds.inputs, cache_dir=None, cache_image=name, platform_api=Version.parse(api)
    )
    builds.start(inputs)
    builds.finish(inputs)
    with RegistryTarget({}).find(name) as image:
        assert image is not None
    for change in ("", "cached"):
        builds.start(inputs)
        builds.finish(inputs, change=change)
        with RegistryTarget({}).find(image.identifier) as old:
            assert (old is None) == (change == "cached" and api == "0.12")
    with RegistryTarget({}).find(name) as new:
        assert new is not None
        assert new.root != image.root


def test_a_registry_that_deletes_no_cache_image_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    builds = Builds(tmp_path)
    with Registry() as registry:
        name = f"{registry.host}/cache"
        inputs = replace(
            builds.inputs, cache_dir=None, cache_image=name, platform_api=Version(0, 12)
        )
        registry.faults.append(Fault("DELETE", "/v2/cache/manifests/.*", Status(405)))
        for change in ("", "cached"):
            builds.start(inputs)
            builds.finish(inputs, change=change)
            assert ("Unable to delete cache image: " in caplog.text) == bool(change)


def test_a_cache_that_was_lost_costs_only_time(tmp_path: Path) -> None:
    builds = Builds(tmp_path)
    builds.start(builds.inputs)
    builds.finish(builds.inputs)
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").mkdir()
    builds.start(builds.inputs)
    assert not (builds.layers / "samples_one" / "cached.toml").exists()
    assert not (builds.layers / "samples_one" / "all-types.toml").exists()
    said = builds.finish(builds.inputs)
    assert "Reusing layer 'samples/one:all-types'" in said
    builds.start(builds.inputs)
    assert (builds.layers / "samples_one" / "cached" / "bin" / "program").exists()
