"""What other tools make of the archives and layouts that we write."""

import json
import subprocess
from pathlib import Path

import pytest

from ocistow.publish.copy import copy
from ocistow.publish.layout import LayoutSource
from ocistow.publish.transports import open_sink
from ocistow.testing.images import GeneratedImage, busybox_image, image_layout

from ..conftest import Dockerd, program


def publish(image: GeneratedImage, destination: str) -> None:
    with open_sink(destination) as sink:
        copy(LayoutSource(image.path), sink)


def digest_of(where: str) -> str:
    command = [program("skopeo"), "inspect", "--format", "{{.Digest}}", where]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def run(*command: str | Path) -> None:
    subprocess.run([program(str(command[0])), *command[1:]], check=True, capture_output=True)


@pytest.mark.tools
@pytest.mark.parametrize("name", ["", ":v1", ":example.org/app:1"])
def test_skopeo_finds_the_same_image(tmp_path: Path, name: str) -> None:
    image = image_layout(tmp_path / "layout")
    for transport, place in (("oci-archive", "a.tar"), ("oci", "made")):
        publish(image, f"{transport}:{tmp_path / place}{name}")
        assert digest_of(f"{transport}:{tmp_path / place}{name}") == str(image.manifest)
    run("skopeo", "copy", "--preserve-digests", f"oci-archive:{tmp_path}/a.tar{name}",
        f"oci:{tmp_path}/back:v1")  # fmt: skip
    assert digest_of(f"oci:{tmp_path}/back:v1") == str(image.manifest)


@pytest.mark.tools
def test_skopeo_reads_a_docker_archive(tmp_path: Path) -> None:
    image = image_layout(tmp_path / "layout")
    archive = tmp_path / "a.tar"
    publish(image, f"docker-archive:{archive}:app:1")
    command = [program("skopeo"), "inspect", "--raw", f"docker-archive:{archive}:app:1"]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    assert json.loads(raw)["config"]["digest"] == str(image.config)
    run("skopeo", "copy", f"docker-archive:{archive}:app:1", f"oci:{tmp_path}/back:v1")
    assert digest_of(f"oci-archive:{archive}") == str(image.manifest)


@pytest.mark.tools
def test_umoci_unpacks_a_layout(tmp_path: Path) -> None:
    image = busybox_image(tmp_path / "layout")
    publish(image, f"oci:{tmp_path / 'made'}:v1")
    run("umoci", "unpack", "--rootless", "--image", f"{tmp_path / 'made'}:v1", tmp_path / "bundle")
    assert (tmp_path / "bundle" / "rootfs" / "bin" / "busybox").exists()


@pytest.mark.docker
def test_docker_loads_a_docker_archive(tmp_path: Path, dockerd: Dockerd) -> None:
    image = busybox_image(tmp_path / "layout", cmd=("/bin/echo", "loaded"))
    publish(image, f"docker-archive:{tmp_path / 'a.tar'}:archived:1")
    assert "archived:1" in dockerd.run("load", "--input", str(tmp_path / "a.tar"))
    assert dockerd.run("image", "inspect", "--format", "{{.Id}}", "archived:1") == str(image.config)
    assert dockerd.run("run", "--rm", "--network", "none", "archived:1") == "loaded"


@pytest.mark.docker
def test_docker_loads_a_sparse_archive(tmp_path: Path, dockerd: Dockerd) -> None:
    base = image_layout(tmp_path / "base", seed=80)
    publish(base, f"docker-archive:{tmp_path / 'base.tar'}:archived-base:1")
    dockerd.run("load", "--input", str(tmp_path / "base.tar"))
    app = image_layout(tmp_path / "app", seed=81, layers=1, base=base)
    archive = f"docker-archive:{tmp_path / 'app.tar'}:archived-app:1"
    with open_sink(archive, without=frozenset(base.layers)) as sink:
        assert copy(LayoutSource(app.path), sink).present == 3
    dockerd.run("load", "--input", str(tmp_path / "app.tar"))
    identity = dockerd.run("image", "inspect", "--format", "{{.Id}}", "archived-app:1")
    assert identity == str(app.config)
