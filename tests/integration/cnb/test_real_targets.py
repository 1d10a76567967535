"""What Go's lifecycle and ours find in the same registry and daemon, and how they say that not."""

import os
import subprocess
import tomllib
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from ocistow.publish.copy import copy
from ocistow.publish.layout import LayoutSource
from ocistow.publish.transports import open_sink
from ocistow.testing.builds import build
from ocistow.testing.images import image_layout, index_layout

from ..conftest import Dockerd, DockerRegistry, serving

Find = Callable[[str], Path]

HTPASSWD = "user:$2b$04$cmOeYn.P5/R1YXJaDN8pY.gCgnY3biNtH4BzSPcmcJocccQFQXFCC\n"
VERSION = b'build\t-ldflags="-X github.com/buildpacks/lifecycle/cmd.Version=%b"\n'
DOCKERFILE = """\
FROM scratch
COPY a /a
ENV EMPTY= LANG=C.UTF-8 EQUAL=a=b
LABEL io.buildpacks.base.distro.name=debian io.buildpacks.base.distro.version=12 x="<&>"
USER 1000:1000
WORKDIR /somewhere
VOLUME /data
EXPOSE 80/tcp 53/udp
STOPSIGNAL SIGKILL
SHELL ["/bin/sh", "-x"]
ONBUILD COPY b /b
HEALTHCHECK --interval=7s --retries=2 CMD true
COPY b /b
CMD ["run"]
"""


class Both:
    """Runs a program of Go's lifecycle and ours on their own layers directories."""

    def __init__(self, path: Path, real: Find, ours: Find) -> None:
        self.path = path
        self._programs = {"real": real, "ours": ours}
        self.environ = {"HOME": str(path), "CNB_PLATFORM_API": "0.14", "PATH": os.defpath}
        (path / "run.toml").write_text('[[images]]\nimage = "run"\n')

    def analyzer(self, *arguments: str) -> tuple[int, str, str]:
        """Return status, messages and analyzed.toml of both, which are equal."""
        real, ours = (self._analyzer(who, arguments) for who in ("real", "ours"))
        assert ours == real
        return ours

    def refused(self, *arguments: str) -> tuple[str, str]:
        """Return what both say, up to the registry's own words, and see that they end alike."""
        real, ours = (self._analyzer(who, arguments) for who in ("real", "ours"))
        assert (real[0], real[2]) == (ours[0], ours[2])
        assert real[0] != 0
        return real[1], ours[1]

    def _analyzer(self, who: str, arguments: tuple[str, ...]) -> tuple[int, str, str]:
        layers = self.path / who
        layers.mkdir(exist_ok=True)
        run = self.path / "run.toml"
        program = self._programs[who]("analyzer")
        done = subprocess.run(
            [program, "-no-color", "-run", run, "-layers", layers, *arguments],
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        analyzed = layers / "analyzed.toml"
        found = analyzed.read_text() if analyzed.exists() else ""
        return done.returncode, done.stdout.replace(str(layers), "<layers>"), found


@pytest.fixture
def both(tmp_path: Path, real: Find, ours: Find) -> Both:
    return Both(tmp_path, real, ours)


def push(path: Path, name: str) -> None:
    with open_sink(f"docker://{name}") as sink:
        copy(LayoutSource(path), sink)


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Generator[DockerRegistry]:
    """Run a registry that wants a password."""
    directory = tmp_path_factory.mktemp("locked")
    (directory / "htpasswd").write_text(HTPASSWD)
    more = f"auth: {{htpasswd: {{realm: test, path: {directory / 'htpasswd'}}}}}"
    with serving(directory / "registry", more) as registry:
        yield registry


def test_images_of_a_registry(both: Both, docker_registry: DockerRegistry) -> None:
    host = f"{docker_registry.host}/real"
    push(image_layout(both.path / "app", layers=1).path, f"{host}/app")
    push(index_layout(both.path / "run").path, f"{host}/run:1")
    both.analyzer("-run-image", f"{host}/run:1", f"{host}/app")
    both.analyzer("-run-image", f"{host}/run:1", "-previous-image", f"{host}/none", f"{host}/app")


def test_a_registry_that_wants_a_password(both: Both, locked: DockerRegistry) -> None:
    name = f"{locked.host}/app"
    for said in both.refused("-run-image", name, name):
        assert (
            f"validating registry read access: failed to ensure registry read access to {name}: "
            in said
        )
    for said in both.refused("-run-image", "", "-cache-image", f"{name}:cache", name):
        assert said.startswith("ERROR: ")


def test_a_registry_that_is_not_there(both: Both) -> None:
    name = "127.0.0.1:1/app"
    for said in both.refused("-run-image", name, name):
        assert f"failed to ensure registry read access to {name}: " in said


@pytest.fixture
def daemon(both: Both, dockerd: Dockerd) -> Dockerd:
    """Have an image in a daemon whose config has all that a Dockerfile can say."""
    both.environ["DOCKER_HOST"] = dockerd.host
    context = both.path / "context"
    context.mkdir()
    for name in ("a", "b"):
        (context / name).write_text(name)
    (context / "Dockerfile").write_text(DOCKERFILE)
    dockerd.run("build", "--tag", "real/run:1", str(context))
    return dockerd


def test_images_of_a_daemon(both: Both, daemon: Dockerd) -> None:
    daemon.run("tag", "real/run:1", "real/app")
    both.analyzer("-daemon", "-run-image", "real/run:1", "real/app")
    both.analyzer("-daemon", "-run-image", "real/run:1", "real/none")
    both.analyzer("-daemon", "-run-image", "real/none", "-tag", "real/other", "real/app")


def test_what_is_exported_upon_an_image_of_a_daemon(
    both: Both, daemon: Dockerd, real: Find, ours: Find
) -> None:
    made = build(both.path / "build")
    said = subprocess.run([real("lifecycle"), "-version"], check=True, capture_output=True).stdout
    made.launcher.write_bytes(b"#!/bin/sh\n" + VERSION % said.strip().partition(b"+")[0])
    made.analyzed(daemon.run("image", "inspect", "--format", "{{.Id}}", "real/run:1")[7:])
    for name, find in {"go": real, "ours": ours}.items():
        command: list[str | Path] = [find("exporter"), *made.arguments("0.14"), "-daemon"]
        command.append(f"real/exported:{name}")
        done = subprocess.run(command, env=both.environ, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout
        image = tomllib.loads(made.report.read_text())["image"]
        inspected = daemon.run("image", "inspect", "--format", "{{.Id}}", f"real/exported:{name}")
        assert image["tags"] == [f"real/exported:{name}"]
        assert image["image-id"] == inspected.removeprefix("sha256:")
    ids = daemon.run("image", "ls", "--no-trunc", "--format", "{{.ID}}", "real/exported").split()
    assert len(ids) == 2
    assert len(set(ids)) == 1


def test_a_daemon_that_is_not_there(both: Both) -> None:
    both.environ["DOCKER_HOST"] = f"unix://{both.path / 'socket'}"
    both.refused("-daemon", "-run-image", "run", "app")
