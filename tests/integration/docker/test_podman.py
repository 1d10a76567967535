"""Podman's imitation of Docker, which does not take an image without some of its layers."""

import subprocess
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from ocistow.oci.errors import RegistryError
from ocistow.publish.access import Access
from ocistow.publish.copy import Copied, copy
from ocistow.publish.layout import LayoutSource
from ocistow.publish.transports import open_sink
from ocistow.testing.images import GeneratedImage, busybox_image, image_layout

from ..conftest import Dockerd, mounts_below, program, running

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Generator[Dockerd]:
    directory = tmp_path_factory.mktemp("podman")
    socket = directory / "socket"
    with tempfile.TemporaryDirectory() as short:  # podman wants no more than 50 characters
        command = [
            program("podman"),
            f"--root={directory / 'root'}",
            f"--runroot={short}",
            "--log-level=info",
            *("system", "service", "--time=0", f"unix://{socket}"),
        ]
        try:
            with running(command) as log:
                log.wait_for("API service listening on")
                yield Dockerd(f"unix://{socket}")
        finally:
            for mount in [*mounts_below(directory), *mounts_below(Path(short))]:
                subprocess.run(["umount", mount], check=True)


def publish(image: GeneratedImage, podman: Dockerd, name: str) -> Copied:
    with open_sink(f"docker-daemon:{name}", access=Access(docker_host=podman.host)) as sink:
        return copy(LayoutSource(image.path), sink)


def test_all_layers_are_sent(tmp_path: Path, podman: Dockerd) -> None:
    base = busybox_image(tmp_path / "base")
    assert publish(base, podman, "base:1").sent == 3
    app = image_layout(tmp_path / "app", seed=1, layers=1, base=base)
    assert publish(app, podman, "app:1").sent == 4
    assert podman.run("image", "inspect", "--format", "{{.Id}}", "app:1") == str(app.config)
    assert publish(app, podman, "app:1").sent == 0
    assert publish(app, podman, "localhost:5000/other:1").sent == 0


def test_its_refusals_are_passed_on(tmp_path: Path, podman: Dockerd) -> None:
    image = image_layout(tmp_path / "layout", seed=2, layers=2)
    blob = image.blob(image.layers[0])
    blob.write_bytes(b"\0" * blob.stat().st_size)
    with pytest.raises(RegistryError) as raised:
        publish(image, podman, "refused")
    assert str(raised.value).startswith(f"docker daemon at {podman.host}: ")
    assert "\n" not in str(raised.value)
