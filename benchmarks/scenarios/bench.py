"""What all scenarios share: a directory to work in, how often, how much, and the images."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ocistow.bench.apps import APPS, Apps, build, make_trees
from ocistow.bench.processes import OCISTOW, Sample, timed
from ocistow.testing.images import GeneratedImage, image_layout

MIB = 1 << 20
GIB = 1 << 30
HOST = "bench.example"


@dataclass(frozen=True)
class Bench:
    """One run of the benchmarks.

    Attributes:
        directory: where all content lies; on one file system.
        rounds: how often each contestant does its work.
        quick: with small images, to see that it works.
        engines: which engines of the mount are measured, one after the other.
    """

    directory: Path
    rounds: int
    quick: bool
    engines: Sequence[str]

    @cached_property
    def base(self) -> GeneratedImage:
        """Five random layers, 160 MiB."""
        size = MIB if self.quick else 32 * MIB
        return image_layout(self.directory / "images" / "base", seed=1, layers=5, layer_size=size)

    @cached_property
    def app(self) -> GeneratedImage:
        """The base and one layer of 1 MiB."""
        return self._above_base("app", 2)

    @cached_property
    def rebuilt(self) -> GeneratedImage:
        """The same with another small layer: what the next build makes."""
        return self._above_base("rebuilt", 3)

    @property
    def names(self) -> Sequence[str]:
        """The applications that are measured."""
        return APPS[:1] if self.quick else APPS

    @cached_property
    def apps(self) -> Apps:
        """A run image and applications of real files: two at least."""
        names = APPS[:2] if self.quick else APPS
        return build(self.directory / "images" / "apps", names, quick=self.quick)

    def trees(self, *, jre: Path, app: Path) -> None:
        """Make a JRE of 130 MB and an application of 40 MB, in directories that are not there."""
        make_trees(self.directory / "images" / "trees", jre=jre, app=app, quick=self.quick)

    def one_layer(self, size: int, *, seed: int = 0) -> GeneratedImage:
        """Return an image of one layer, not compressed so that making it takes seconds."""
        return self.layers(1, size, seed=seed)

    def layers(self, count: int, size: int, *, seed: int = 0) -> GeneratedImage:
        """Return an image of so many layers of that size; other seeds give others."""
        path = self.directory / "images" / f"layers-{count}-{size}-{seed}"
        return image_layout(path, seed=seed, layers=count, layer_size=size, compression="none")

    def fresh(self, name: str) -> Path:
        """Return a path below which nothing is; its parent exists."""
        path = self.directory / "work" / name
        shutil.rmtree(path, ignore_errors=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def empty(self, name: str) -> Path:
        """Return a directory with nothing in it."""
        path = self.fresh(name)
        path.mkdir()
        return path

    def _above_base(self, name: str, seed: int) -> GeneratedImage:
        path = self.directory / "images" / name
        return image_layout(path, seed=seed, layers=1, layer_size=MIB, base=self.base)


def ocistow(store: Path, *arguments: str | Path, docker_host: str = "") -> Sample:
    """Run a command of ocistow on a store."""
    environment = {"DOCKER_HOST": docker_host} if docker_host else {}
    return timed(*OCISTOW, "--store", store, *arguments, environment=environment)


def add(store: Path, image: Path, name: str) -> Sample:
    """Add the image `latest` of a layout."""
    return ocistow(store, "add", f"oci:{image}:latest", f"{HOST}/{name}")


def skopeo(*arguments: str | Path) -> Sample:
    """Copy quietly with skopeo."""
    return timed("skopeo", "copy", "--quiet", *arguments)


def step(name: str, run: Callable[[], Sample]) -> Callable[[], dict[str, Sample]]:
    """Return a contestant that only has to run one thing."""
    return lambda: {name: run()}


def say(text: str) -> None:
    """Tell whoever waits what goes on."""
    sys.stderr.write(f"{text}\n")


def temporary(directory: Path | None) -> tempfile.TemporaryDirectory[str]:
    """Return a directory that removes itself; /var/tmp is on a disk more often than /tmp."""
    return tempfile.TemporaryDirectory(prefix="ocistow-bench-", dir=directory or "/var/tmp")
