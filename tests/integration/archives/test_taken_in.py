"""Archives that other tools write, taken in from files and through pipes."""

import bz2
import gzip
import lzma
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import zstandard

from ocistow.oci.descriptor import Descriptor
from ocistow.oci.manifest import Manifest, parse_manifest
from ocistow.oci.reference import Reference
from ocistow.publish.layout import StoreSource
from ocistow.publish.source import read_document
from ocistow.store.store import Store
from ocistow.testing.images import GeneratedImage, image_layout

from ..conftest import mounts_below, program

pytestmark = pytest.mark.tools

NAME = Reference.parse("example.org/app:1")
Add = Callable[..., tuple[Descriptor, Manifest]]


@pytest.fixture
def image(tmp_path: Path) -> GeneratedImage:
    return image_layout(tmp_path / "layout", layers=3, layer_size=200_000)


@pytest.fixture
def add(tmp_path: Path) -> Add:
    """`ocistow add SOURCE` into a store of its own; `before` is piped into it."""

    def run(source: str, *before: str) -> tuple[Descriptor, Manifest]:
        store = tmp_path / f"store-{len(list(tmp_path.glob('store-*')))}"
        command = [sys.executable, "-m", "ocistow.cli", "--store", str(store)]
        command += ["add", source, str(NAME)]
        if not source.endswith("-"):
            subprocess.run(command, check=True)
        else:
            with subprocess.Popen(before, stdout=subprocess.PIPE) as process:
                subprocess.run(command, stdin=process.stdout, check=True)
            assert process.returncode == 0
        with Store.open(store) as opened:
            reading = StoreSource(opened.layout(NAME.path))
            root = reading.resolve()
            manifest = parse_manifest(read_document(reading, root), root)
        assert isinstance(manifest, Manifest)
        return root, manifest

    return run


@pytest.fixture
def podman(image: GeneratedImage) -> Iterator[list[str]]:
    """Podman with a storage of its own that has the image as localhost/app:1."""
    if os.geteuid() != 0:
        pytest.skip("podman's storage needs root here")
    with TemporaryDirectory(prefix="podman-") as base:  # it refuses paths of over 50 characters
        storage = f"vfs@{base}/root+{base}/run"
        skopeo(f"oci:{image.path}:latest", f"containers-storage:[{storage}]localhost/app:1")
        yield [
            program("podman"),
            *(f"--root={base}/root", f"--runroot={base}/run", "--storage-driver=vfs"),
            *("--cgroup-manager=cgroupfs", "--events-backend=none"),
        ]
        for mount in mounts_below(Path(base)):
            subprocess.run(["umount", "--lazy", mount], check=True)


def skopeo(source: str, destination: str) -> None:
    command = [program("skopeo"), "--insecure-policy", "copy", "--quiet", source, destination]
    subprocess.run(command, check=True)


@pytest.mark.parametrize("text", ["oci-archive:{}", "oci-archive:{}:v1", "oci-archive:-", "-"])
def test_skopeos_layout_archives(
    tmp_path: Path, image: GeneratedImage, add: Add, text: str
) -> None:
    archive = tmp_path / "a.tar"
    skopeo(f"oci:{image.path}:latest", f"oci-archive:{archive}:v1")
    root, _ = add(text.format(archive), "cat", str(archive))
    assert root.digest == image.manifest


@pytest.mark.parametrize("text", ["docker-archive:{}", "docker-archive:{}:app:v1", "-"])
def test_skopeos_docker_archives(
    tmp_path: Path, image: GeneratedImage, add: Add, text: str
) -> None:
    archive = tmp_path / "a.tar"
    skopeo(f"oci:{image.path}:latest", f"docker-archive:{archive}:app:v1")
    _, manifest = add(text.format(archive), "cat", str(archive))
    assert manifest.config.digest == image.config


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
@pytest.mark.parametrize("text", ["{}:-", "-"])
def test_podmans_archives(
    image: GeneratedImage, podman: list[str], add: Add, form: str, text: str
) -> None:
    _, manifest = add(text.format(form), *podman, "save", f"--format={form}", "localhost/app:1")
    assert manifest.config.digest == image.config


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
def test_archives_that_were_compressed(
    tmp_path: Path, image: GeneratedImage, add: Add, pack: Callable[[bytes], bytes]
) -> None:
    archive, packed = tmp_path / "a.tar", tmp_path / "packed"
    skopeo(f"oci:{image.path}:latest", f"oci-archive:{archive}:v1")
    packed.write_bytes(pack(archive.read_bytes()))
    assert add("-", "cat", str(packed))[0].digest == image.manifest
    assert add(f"oci-archive:{packed}")[0].digest == image.manifest


def test_a_tar_of_a_layout_directory(image: GeneratedImage, add: Add) -> None:
    """Names begin with `./`, and directories are members."""
    root, _ = add("-", "tar", "--create", f"--directory={image.path}", ".")
    assert root.digest == image.manifest
