"""Places that images are exported to, and how clients reach them there."""

import os
import subprocess
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ocistow.lifecycle.images.image import Image, Target
from ocistow.lifecycle.inputs import Inputs
from ocistow.lifecycle.targets import open_destination
from ocistow.lifecycle.targets.layout import open_layouts
from ocistow.oci.reference import Reference
from ocistow.publish.copy import copy
from ocistow.publish.layout import LayoutSource, StoreSink
from ocistow.store.store import Store
from ocistow.testing.images import GeneratedImage
from ocistow.testing.mounts import mounted

from ..conftest import Dockerd, DockerRegistry, program

PLACES = [
    "layout",
    "store",
    pytest.param("mounted", marks=pytest.mark.fuse),
    pytest.param("registry", marks=pytest.mark.registry),
    pytest.param("daemon", marks=pytest.mark.docker),
]


@dataclass(frozen=True, slots=True)
class Place:
    """One of them.

    Attributes:
        prefix: what references begin with, with a slash at its end.
        layouts: the directory of image layouts, if it is one.
        docker_host: the daemon, if it is one.
    """

    prefix: str
    layouts: Path | None = None
    docker_host: str = ""

    def given(self, inputs: Inputs) -> Inputs:
        """Return the inputs of a phase that works here."""
        environ = {"DOCKER_HOST": self.docker_host} if self.docker_host else {}
        return replace(
            inputs,
            image=self.prefix + inputs.image,
            daemon=bool(self.docker_host),
            layout=self.layouts is not None,
            layout_dir=self.layouts,
            environ=environ,
        )

    def open(self, inputs: Inputs) -> AbstractContextManager[Target]:
        """Open it for a phase."""
        if self.layouts is not None:
            return open_layouts(self.layouts)
        return open_destination(inputs)

    @contextmanager
    def find(self, inputs: Inputs, name: str) -> Generator[Image]:
        """Look an image up."""
        with self.open(inputs) as target, target.find(self.prefix + name) as image:
            assert image is not None, name
            yield image

    def put(self, image: GeneratedImage, name: str) -> None:
        """Give an image of a layout a name, by a client where there is one."""
        if self.layouts is not None and (self.layouts.parent / "ocistow.json").exists():
            with Store.open(self.layouts.parent) as store:
                copy(
                    LayoutSource(image.path), StoreSink(store, Reference.parse(self.prefix + name))
                )
            return
        if self.layouts is not None:
            self.directory(name).parent.mkdir(parents=True, exist_ok=True)
        self._skopeo("dest", [f"oci:{image.path}:latest"], self._named(name))

    def fetch(self, name: str, layout: Path) -> None:
        """Copy an image into a layout, by a client."""
        self._skopeo("src", self._named(name), [f"oci:{layout}:latest"])

    def directory(self, name: str) -> Path:
        """Return where the layout of an image is."""
        assert self.layouts is not None
        return self.layouts / Reference.parse(self.prefix + name).path

    def _named(self, name: str) -> list[str]:
        if self.layouts is not None:
            return [f"oci:{self.directory(name)}:{Reference.parse(name).tag}"]
        return [f"docker{'-daemon' if self.docker_host else ''}://{self.prefix}{name}"]

    def _skopeo(self, side: str, source: list[str], target: list[str]) -> None:
        more = [] if self.layouts is not None else [f"--{side}-tls-verify=false"]
        if self.docker_host:
            more = [f"--{side}-daemon-host={self.docker_host}"]
            source, target = (
                [text.replace("docker-daemon://", "docker-daemon:") for text in side]
                for side in (source, target)
            )
        command = [program("skopeo"), "copy", *more, *source, *target]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (command, done.stderr)


@contextmanager
def opened(kind: str, request: pytest.FixtureRequest, directory: Path) -> Generator[Place]:
    """Make a place of a kind of `PLACES`, in a directory that does not exist yet."""
    name = f"t{os.path.basename(directory)}".lower()
    if kind == "layout":
        yield Place("example.com/", directory / "layouts-of-none")
    elif kind == "store":
        with Store.create(directory) as store:
            yield Place("example.com/", store.layouts)
    elif kind == "mounted":
        request.getfixturevalue("fuse")
        directory.mkdir()
        with mounted(directory / "store", directory / "mnt") as mount:
            yield Place("example.com/", mount.path)
    elif kind == "registry":
        registry: DockerRegistry = request.getfixturevalue("docker_registry")
        yield Place(f"{registry.host.replace('127.0.0.1', 'localhost')}/{name}/")
    else:
        daemon: Dockerd = request.getfixturevalue("dockerd")
        yield Place(f"example.com/{name}/", docker_host=daemon.host)
