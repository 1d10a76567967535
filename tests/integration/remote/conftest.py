"""Two stores with a registry between them, used as a user would: one command after another."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ocistow.testing.images import GeneratedImage, image_layout
from ocistow.testing.mounts import run

from ..conftest import DockerRegistry

Ocistow = Callable[..., "subprocess.CompletedProcess[str]"]
LAYER_SIZE = 300_000


@pytest.fixture
def image(tmp_path: Path, request: pytest.FixtureRequest) -> GeneratedImage:
    seed = sum(map(ord, str(request.node.name)))  # the registry is shared, its blobs must not be
    return image_layout(tmp_path / "layout", seed=seed, layers=4, layer_size=LAYER_SIZE)


@pytest.fixture
def published(tmp_path: Path, image: GeneratedImage, docker_registry: DockerRegistry) -> str:
    """The repository to which another store published the image, as `HOST/REPO`."""
    repository = f"{docker_registry.host}/tier/{image.manifest.encoded[:12]}"
    other = tmp_path / "other"
    ok(run(other, "add", f"oci:{image.path}", "app"))
    ok(run(other, "publish", "app", f"docker://{repository}:1"))
    return repository


def ok(done: "subprocess.CompletedProcess[str]") -> str:
    """Return what a command printed; it must have succeeded."""
    assert done.returncode == 0, done.stderr
    return done.stdout


def document(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ok(done))
    return found


def pool(store: Path) -> set[str]:
    return {f"{file.parent.name}:{file.name}" for file in store.glob("blobs/*/*")}


def everything(image: GeneratedImage) -> set[str]:
    return {str(digest) for digest in (image.manifest, image.config, *image.layers)}
