"""Publishing by processes that are killed, and by several at once."""

import os
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import ocistow
from ocistow.oci.digest import Digest
from ocistow.oci.reference import Reference
from ocistow.publish.copy import copy
from ocistow.publish.distribution.upload import CHUNK, LARGE
from ocistow.publish.layout import LayoutSource, StoreSink
from ocistow.store.store import Store
from ocistow.testing.faults import Fault, Hang
from ocistow.testing.images import GeneratedImage, image_layout
from ocistow.testing.registry import Registry

from ..conftest import DockerRegistry, program, serving

SOURCES = Path(ocistow.__file__).parents[1]
KILLS = 25
NAME = Reference.parse("example.com/app:1")
ACCEPT = {"Accept": "application/vnd.oci.image.manifest.v1+json"}

Process = subprocess.Popen[str]


@pytest.fixture
def image(tmp_path: Path) -> GeneratedImage:
    """An image of 20 blobs, two of them larger."""
    large = image_layout(
        tmp_path / "layout", seed=1, layers=2, layer_size=6 << 20, compression="none"
    )
    return image_layout(tmp_path / "layout", seed=2, layers=17, layer_size=50_000, base=large)


@pytest.fixture
def store(tmp_path: Path, image: GeneratedImage) -> Path:
    """A store that has the image as `NAME`, and remembers nothing."""
    with Store.create(tmp_path / "store") as store:
        copy(LayoutSource(image.path), StoreSink(store, NAME))
    return tmp_path / "store"


@pytest.fixture
def counted(tmp_path: Path) -> Iterator[DockerRegistry]:
    """A registry of our own, whose log tells what it was sent."""
    with serving(tmp_path / "registry") as registry:
        yield registry


def start(store: Path, destination: str) -> Process:
    command = [sys.executable, "-m", "ocistow.cli", "publish", str(NAME), destination]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OCISTOW_")}
    own = {"OCISTOW_STORE": str(store), "OCISTOW_CONFIG": os.devnull, "PYTHONPATH": str(SOURCES)}
    return subprocess.Popen(command, env=kept | own, stderr=subprocess.PIPE, text=True)


def kill_after(process: Process, registry: DockerRegistry, lines: int) -> None:
    """Kill a process, if it has not ended, once the log of a registry has so many lines."""
    while len(registry.log) < lines:
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.001)
            return
    process.kill()


def finish(process: Process) -> None:
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


def forget(store: Path) -> None:
    """Let the next process know nothing of registries."""
    for file in store.glob("index.sqlite*"):
        file.unlink()


def raw_manifest(registry: DockerRegistry, repository: str) -> bytes:
    url = f"http://{registry.host}/v2/{repository}/manifests/1"
    with urllib.request.urlopen(urllib.request.Request(url, headers=ACCEPT)) as answer:
        return bytes(answer.read())


def fetch(text: str, out: Path) -> None:
    """Have skopeo fetch an image, which checks every digest."""
    command = [program("skopeo"), "copy", "--src-tls-verify=false", text, f"oci:{out}"]
    subprocess.run(command, check=True, capture_output=True)


def finished(registry: DockerRegistry, repository: str) -> Counter[str]:
    """Count how often each blob was sent to its end."""
    path = rf"/v2/{repository}/blobs/uploads/\S*digest=sha256%3A([0-9a-f]{{64}})"
    pattern = rf"http\.request\.method=PUT .*{path}.*http\.response\.status=201"
    return Counter(match[1] for match in registry.log.find(pattern))


@pytest.mark.registry
@pytest.mark.tools
@pytest.mark.slow
def test_whoever_is_killed_at_any_time_goes_on_without_repeating(
    tmp_path: Path, counted: DockerRegistry, store: Path, image: GeneratedImage
) -> None:
    expected = image.blob(image.manifest).read_bytes()
    began = len(counted.log)
    finish(start(store, f"docker://{counted.host}/whole:1"))
    whole = len(counted.log) - began
    killed, destination = 0, ""
    for number in range(KILLS):
        forget(store)
        destination = f"docker://{counted.host}/kill-{number}:1"
        process = start(store, destination)
        kill_after(process, counted, len(counted.log) + whole * number // KILLS)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        finish(start(store, destination))
        assert raw_manifest(counted, f"kill-{number}") == expected
    assert killed > KILLS // 2
    fetch(destination, tmp_path / "out")
    counted.log.wait_for(
        rf"http\.request\.method=GET .*/v2/kill-{KILLS - 1}/manifests/1.*status=200"
    )
    blobs = {image.config.encoded, *(layer.encoded for layer in image.layers)}
    for number in range(KILLS):
        assert finished(counted, f"kill-{number}") == dict.fromkeys(blobs, 1)


@pytest.mark.slow
def test_a_large_blob_is_taken_up_by_the_next_process(tmp_path: Path) -> None:
    size = LARGE + (8 << 20)
    image = image_layout(tmp_path / "layout", layers=1, layer_size=size, compression="none")
    with Store.create(tmp_path / "store") as store:
        copy(LayoutSource(image.path), StoreSink(store, NAME))
    with Registry() as registry:
        registry.faults.append(Fault("PATCH", f"_state={CHUNK}", Hang()))
        process = start(store.path, f"docker://{registry.host}/app:1")
        while not any(f"_state={CHUNK}" in request.path for request in list(registry.requests)):
            assert process.poll() is None
        process.kill()
        process.communicate()
        registry.requests.clear()
        finish(start(store.path, f"docker://{registry.host}/app:1"))
        assert registry.repositories.tags("app") == {"1": image.manifest}
        layer = image.blob(image.layers[0]).stat().st_size
        patches = [r.received for r in registry.requests if r.method == "PATCH"]
        assert sum(patches) == layer - CHUNK


@pytest.mark.registry
@pytest.mark.tools
def test_two_processes_publish_one_image_at_once(
    tmp_path: Path, docker_registry: DockerRegistry, store: Path, image: GeneratedImage
) -> None:
    destination = f"docker://{docker_registry.host}/at/once:1"
    for process in [start(store, destination) for _ in range(2)]:
        finish(process)
    assert Digest.of(raw_manifest(docker_registry, "at/once")) == image.manifest
    fetch(destination, tmp_path / "out")
