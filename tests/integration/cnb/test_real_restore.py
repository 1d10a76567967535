"""Analyzer, restorer and caches beside those of Go's lifecycle, on the same inputs."""

import io
import json
import os
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ocistow.lifecycle.analyze import analyze
from ocistow.lifecycle.caches.directory import DirectoryCache
from ocistow.lifecycle.caches.export import fill_cache
from ocistow.lifecycle.caches.opening import open_cache
from ocistow.lifecycle.console import Console, Level
from ocistow.lifecycle.files.group import read_group
from ocistow.lifecycle.files.labels import CACHE_METADATA
from ocistow.lifecycle.images.image import Target
from ocistow.lifecycle.inputs import Inputs
from ocistow.lifecycle.layers.directories import read_buildpack_dir
from ocistow.lifecycle.restore import restore
from ocistow.lifecycle.targets.layout import LayoutTarget
from ocistow.lifecycle.targets.registry import RegistryTarget
from ocistow.testing.builds import BUILDPACKS, Build, build
from ocistow.testing.faults import Fault, Status
from ocistow.testing.images import image_layout
from ocistow.testing.registry import Registry

Tree = dict[str, tuple[str, object]]  # mode and content
Phase = Callable[[Inputs, Target, Console], object]
APIS = ("0.7", "0.9", "0.12", "0.14", "0.15")


@dataclass(frozen=True)
class World:
    """A build that Go's exporter exported and cached, and whose layers are gone."""

    made: Build
    registry: Registry
    cache: Path
    real: Callable[[str], Path]
    api: str

    @property
    def app(self) -> str:
        return f"{self.registry.host}/app"

    @property
    def run_image(self) -> str:
        return f"{self.registry.host}/run"

    @property
    def inputs(self) -> Inputs:
        return replace(
            self.made.inputs(self.app, self.api),
            cache_dir=self.cache,
            previous_image=self.app,
            run_image=self.run_image,
            uid=0,
            gid=0,
        )

    def go(self, program: str, *arguments: str) -> str:
        """Run a program of Go's lifecycle and return what it says."""
        command = [str(self.real(program)), "-no-color", *arguments]
        environ = {
            "CNB_PLATFORM_API": self.api,
            "CNB_EXPERIMENTAL_MODE": "quiet",
            "HOME": str(self.made.root),
            "CNB_LAYERS_DIR": str(self.made.layers),
            "CNB_RUN_PATH": str(self.made.root / "run.toml"),
            "CNB_STACK_PATH": str(self.made.root / "stack.toml"),
        }
        done = subprocess.run(
            command,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def wipe(self) -> None:
        """Leave nothing in the layers directory but what the detector would have written."""
        shutil.rmtree(self.made.layers)
        self.made.layers.mkdir()
        (self.made.layers / "group.toml").write_text(BUILDPACKS.format(table="group"))

    def refill(self) -> None:
        """Bring back what the buildpacks wrote."""
        shutil.rmtree(self.made.layers)
        shutil.copytree(self.made.root.parent / "layers", self.made.layers, symlinks=True)

    def go_analyzer(self) -> str:
        return self.go(
            "analyzer", f"-previous-image={self.app}", f"-run-image={self.run_image}", self.app
        )

    def go_restorer(self, *arguments: str) -> str:
        return self.go("restorer", f"-cache-dir={self.cache}", *arguments)

    def ours(self, phase: Phase, inputs: Inputs, target: Target | None = None) -> str:
        out = io.BytesIO()
        console = Console(out, level=Level.INFO)
        console.color = False
        phase(inputs, target or RegistryTarget({"HOME": str(self.made.root)}), console)
        return out.getvalue().decode()

    def tree(self) -> Tree:
        return dict(sorted(entries(self.made.layers)))


def entries(directory: Path) -> Iterator[tuple[str, tuple[str, object]]]:
    for path in sorted(directory.rglob("*")):
        mode = path.lstat().st_mode
        content: object = None
        if path.is_symlink():
            content = os.readlink(path)
        elif path.suffix == ".toml":
            content = tomllib.loads(path.read_text())
        elif path.is_file():
            content = path.read_bytes()
        if ".sbom." in path.name:
            mode = 0  # where Go's restorer unpacks a layer meanwhile, there is no umask
        yield str(path.relative_to(directory)), (oct(mode), content)


def lines(said: str) -> list[str]:
    """Return what both say; Go's maps have no order."""
    return sorted(said.splitlines())


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as registry:
        yield registry


@pytest.fixture(params=APIS)
def world(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    registry: Registry,
    real: Callable[[str], Path],
) -> World:
    made = build(tmp_path / "build")
    run_image = image_layout(tmp_path / "run")
    registry.repositories.load(run_image.path, "run")
    (tmp_path / "cache").mkdir()
    world = World(made, registry, tmp_path / "cache", real, str(request.param))
    made.analyzed(f"{world.run_image}@{run_image.manifest}")
    shutil.copytree(made.layers, tmp_path / "layers", symlinks=True)
    arguments = [*made.arguments(world.api), "-uid=0", "-gid=0", f"-cache-dir={world.cache}"]
    world.go("exporter", *arguments, world.app)
    world.wipe()
    return world


def test_analyzed_and_restored_alike(world: World) -> None:
    said = world.go_analyzer()
    analyzed = world.tree()
    restored_said = world.go_restorer()
    restored = world.tree()
    assert "samples_one/cached/bin/program" in restored
    world.wipe()
    assert lines(world.ours(analyze, world.inputs)) == lines(said)
    assert world.tree() == analyzed
    assert lines(world.ours(restore, world.inputs)) == lines(restored_said)
    assert world.tree() == restored


def restored_alike(world: World, cache: Path | None = None, *arguments: str) -> Tree:
    """Restore twice, each time from a cache of its own; return what both restored."""
    cache = cache or world.cache
    world.wipe()
    world.go_analyzer()
    kept = shutil.copytree(cache, world.made.root / "again", symlinks=True)
    said = world.go("restorer", f"-cache-dir={cache}", *arguments)
    restored = world.tree()
    world.wipe()
    world.ours(analyze, world.inputs)
    inputs = replace(world.inputs, cache_dir=kept, skip_layers="-skip-layers" in arguments)
    assert lines(world.ours(restore, inputs)) == lines(said)
    assert world.tree() == restored
    return restored


@pytest.mark.parametrize("world", ["0.12", "0.15"], indirect=True)
def test_go_restores_from_our_cache_as_we_do(world: World) -> None:
    world.refill()
    ours = world.made.root / "ours"
    ours.mkdir()
    directories = [
        read_buildpack_dir(world.made.layers, buildpack, print)
        for buildpack in read_group(world.made.layers / "group.toml").buildpacks
    ]
    with DirectoryCache(ours) as cache:
        cache.commit(fill_cache(world.inputs, cache, directories, Console(io.BytesIO())))
    for name in os.listdir(world.cache / "committed"):
        theirs = (world.cache / "committed" / name).read_bytes()
        assert (ours / "committed" / name).read_bytes() == theirs
    assert "samples_one/cached/bin/program" in restored_alike(world, ours)


@pytest.mark.parametrize("world", ["0.15"], indirect=True)
def test_without_layers_only_stores_are_restored_alike(world: World) -> None:
    restored = restored_alike(world, None, "-skip-layers")
    assert "samples_one/store.toml" in restored
    assert "samples_one/launched.toml" not in restored


@pytest.mark.parametrize("world", ["0.12", "0.15"], indirect=True)
def test_a_cache_that_knows_other_layers_is_restored_alike(world: World) -> None:
    """The image is of the build before: its layers are not those of the cache."""
    world.refill()
    (world.made.layers / "samples_one" / "all-types" / "new").write_text("new")
    arguments = [*world.made.arguments(world.api), "-uid=0", "-gid=0", f"-cache-dir={world.cache}"]
    world.go("exporter", *arguments, f"{world.registry.host}/other")
    restored = restored_alike(world)
    assert "samples_one/all-types" not in restored
    assert "samples_one/cached" in restored


@pytest.mark.parametrize("world", ["0.15"], indirect=True)
@pytest.mark.parametrize("damage", ["lost", "damaged"])
def test_what_the_cache_lost_is_told_alike(world: World, damage: str) -> None:
    """But where Go's restorer leaves metadata without a layer, a buildpack finds neither."""
    metadata = json.loads((world.cache / "committed" / CACHE_METADATA).read_text())
    sha = metadata["buildpacks"][0]["layers"]["cached"]["sha"]
    file = world.cache / "committed" / f"{sha}.tar"
    if damage == "lost":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1] + b"1")
    world.go_analyzer()
    kept = shutil.copytree(world.cache, world.made.root / "again")
    said = world.go_restorer()
    restored = world.tree()
    world.wipe()
    world.ours(analyze, world.inputs)
    assert lines(world.ours(restore, replace(world.inputs, cache_dir=kept))) == lines(said)
    assert "Skipping restore for layer samples/one:cached: " in said
    del restored["samples_one/cached.toml"]
    assert world.tree() == restored


@pytest.mark.parametrize("world", ["0.12", "0.15"], indirect=True)
def test_a_cache_image_is_restored_from_and_by_go(world: World) -> None:
    theirs, ours = f"{world.registry.host}/cache/theirs", f"{world.registry.host}/cache/ours"
    world.refill()
    arguments = [*world.made.arguments(world.api), "-uid=0", "-gid=0", f"-cache-image={theirs}"]
    world.go("exporter", *arguments, world.app)
    inputs = replace(world.inputs, cache_dir=None, cache_image=ours)
    for reused in (0, 3):
        out = io.BytesIO()
        with open_cache(inputs) as cache:
            assert cache is not None
            directories = [
                read_buildpack_dir(world.made.layers, buildpack, print)
                for buildpack in read_group(world.made.layers / "group.toml").buildpacks
            ]
            cache.commit(fill_cache(inputs, cache, directories, Console(out)))
        assert out.getvalue().count(b"Reusing") == reused
    trees: list[Tree] = []
    for image in (theirs, ours):
        world.wipe()
        world.go_analyzer()
        said = world.go("restorer", f"-cache-image={image}")
        trees.append(world.tree())
        world.wipe()
        world.ours(analyze, world.inputs)
        inputs = replace(world.inputs, cache_dir=None, cache_image=image)
        assert lines(world.ours(restore, inputs)) == lines(said)
        assert world.tree() == trees[-1]
    assert trees[0] == trees[1]
    assert "samples_one/cached/bin/program" in trees[0]


@pytest.mark.parametrize("world", ["0.7", "0.15"], indirect=True)
def test_an_image_that_lost_a_layer_is_ignored_alike(world: World) -> None:
    with RegistryTarget({"HOME": str(world.made.root)}).find(world.app) as app:
        assert app is not None
        lost = app.layers[-2].blob.digest
    path = f"/v2/app/blobs/{lost}"
    world.registry.faults.append(Fault("GET|HEAD", path, Status(404), times=None))
    said = world.go_analyzer()
    analyzed = world.tree()
    world.wipe()
    ours = world.ours(analyze, world.inputs)
    assert "because it was corrupt" in said
    assert lines(ours) == lines(said)
    assert world.tree() == analyzed


@pytest.fixture
def layouts(tmp_path: Path) -> Path:
    """Return a directory of layouts that has the run image."""
    place = tmp_path / "layouts" / "index.docker.io" / "example" / "run" / "latest"
    image_layout(place, tag="latest")
    return tmp_path / "layouts"


@pytest.mark.parametrize("world", ["0.12", "0.15"], indirect=True)
def test_layouts_are_analyzed_alike_but_for_the_run_images_name(
    world: World, layouts: Path
) -> None:
    names = ["-layout", f"-layout-dir={layouts}"]
    images = ["-run-image=example/run", "-previous-image=example/old", "example/app"]
    inputs = replace(
        world.inputs, layout=True, layout_dir=layouts, image="example/app", run_image="example/run"
    )
    world.wipe()
    said = world.go("analyzer", *names, *images)
    theirs = world.tree()
    world.wipe()
    target = LayoutTarget(layouts)
    inputs = replace(inputs, previous_image="example/old")
    assert lines(world.ours(analyze, inputs, target)) == lines(said)
    mode, _ = world.tree()["analyzed.toml"]
    path = layouts / "index.docker.io" / "example" / "run" / "latest"
    analyzed = tomllib.loads((world.made.layers / "analyzed.toml").read_text())
    assert analyzed["run-image"]["image"] == "example/run"
    analyzed["run-image"]["image"] = str(path)
    assert theirs["analyzed.toml"] == (mode, analyzed)


@pytest.mark.parametrize("world", ["0.12", "0.15"], indirect=True)
@pytest.mark.parametrize("analyzer", ["go", "ours"])
def test_either_analyzer_serves_go_and_us(world: World, layouts: Path, analyzer: str) -> None:
    """Go's exporter takes what our analyzer wrote; of what either wrote, both restore the same."""
    names = ["-layout", f"-layout-dir={layouts}"]
    images = ["-run-image=example/run", "example/app"]
    target = LayoutTarget(layouts)
    inputs = replace(
        world.inputs,
        layout=True,
        layout_dir=layouts,
        image="example/app",
        previous_image="example/app",
        run_image="example/run",
    )
    (world.made.root / "run.toml").write_text(
        '[[images]]\nimage = "example/first"\n[[images]]\nimage = "example/run"\n'
    )

    def analyzed() -> None:
        if analyzer == "go":
            world.go("analyzer", *names, *images)
        else:
            world.ours(analyze, inputs, target)

    world.refill()
    analyzed()
    arguments = [*world.made.arguments(world.api), "-uid=0", "-gid=0", f"-cache-dir={world.cache}"]
    world.go("exporter", *names, *arguments, "example/app")
    with target.find("example/app") as app:
        assert app is not None
        label = json.loads(app.config.labels["io.buildpacks.lifecycle.metadata"])
    assert label["runImage"]["image"] == ("example/run" if analyzer == "ours" else "example/first")
    world.wipe()
    analyzed()
    before = (world.made.layers / "analyzed.toml").read_text()
    said = world.go("restorer", *names, f"-cache-dir={world.cache}")
    restored = world.tree()
    world.wipe()
    (world.made.layers / "analyzed.toml").write_text(before)
    world.ours(analyze, inputs, target)
    (world.made.layers / "analyzed.toml").write_text(before)
    assert lines(world.ours(restore, inputs, target)) == lines(said)
    assert world.tree() == restored
    assert "samples_one/launched.sbom.cdx.json" in restored
