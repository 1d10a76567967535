"""Images that stay in a daemon until a layer is read, and other images on top of them."""

import gzip
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

from ocistow.lifecycle.images.image import Image
from ocistow.lifecycle.targets.daemon import DaemonTarget
from ocistow.oci.descriptor import OCI_CONFIG, OCI_MANIFEST, Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.errors import InvalidContent, NotFound
from ocistow.publish.access import Access
from ocistow.publish.archives.docker import image_manifest
from ocistow.publish.docker.engine import Engine
from ocistow.publish.docker.host import find_host
from ocistow.publish.layout import LayoutSource
from ocistow.publish.source import Blob
from ocistow.testing.images import image_layout
from ocistow.testing.tarballs import random_tar

from ..conftest import Dockerd

pytestmark = pytest.mark.docker


@contextmanager
def target_of(daemon: Dockerd) -> Generator[DaemonTarget]:
    access = Access(docker_host=daemon.host)
    with Engine(find_host(access), access.timeout) as engine, DaemonTarget(engine) as target:
        yield target


@pytest.fixture
def target(each: Dockerd) -> Generator[DaemonTarget]:
    with target_of(each) as target:
        yield target


def saved_layers(daemon: Dockerd, name: str, path: Path) -> list[Digest]:
    """Return the diffIDs of what `docker save` writes."""
    daemon.run("image", "save", "--output", str(path), name)
    with tarfile.open(path) as archive:

        def content(member: str) -> bytes:
            file = archive.extractfile(member)
            assert file is not None
            return file.read()

        [entry] = json.loads(content("manifest.json"))
        return [Digest.of(inflated(content(member))) for member in entry["Layers"]]


def inflated(layer: bytes) -> bytes:
    return gzip.decompress(layer) if layer[:1] == b"\x1f" else layer


def test_an_image_is_found_and_a_layer_of_it_read(
    tmp_path: Path, each: Dockerd, target: DaemonTarget
) -> None:
    image = image_layout(tmp_path / "layout", seed=51, layers=3, layer_size=200_000)
    saved = target.save(LayoutSource(image.path), ["held/run:1", "held/run:2"])
    assert saved.names == ("held/run:1", "held/run:2")
    assert each.run("image", "inspect", "--format", "{{.Id}}", "held/run:2") == str(saved.image_id)
    with target.find("held/run:1") as found:
        assert found is not None
        assert found.identifier == saved.image_id.encoded
        assert found.top_layer == image.diff_ids[-1]
        for at in (1, 0, 2):
            descriptor = found.layers[at].blob
            with found.source.open(descriptor) as blob:
                content = b"".join(blob)
            assert blob.descriptor.size == len(content)
            assert Digest.of(content) == descriptor.digest
            assert Digest.of(inflated(content)) == image.diff_ids[at]
    with target.find(saved.image_id.encoded) as found:
        assert found is not None
        assert found.identifier == saved.image_id.encoded
    with target.find("held/absent") as found:
        assert found is None


class OnTop:
    """A layer on top of an image that was found; notes what is opened of that."""

    sparse = False

    def __init__(self, base: Image, layer: bytes) -> None:
        self._base = base
        diff_ids = (*base.config.diff_ids, Digest.of(layer))
        config = replace(base.config, diff_ids=diff_ids, history=()).encode()
        kind = base.layers[0].blob.media_type.removesuffix("+gzip").removesuffix(".gzip")
        top = Descriptor(kind, Digest.of(layer), len(layer))
        described = Descriptor(OCI_CONFIG, Digest.of(config), len(config))
        layers = [*(layer.blob for layer in base.layers), top]
        manifest = image_manifest(described, layers)
        self._root = Descriptor(OCI_MANIFEST, Digest.of(manifest), len(manifest))
        self._ours = {Digest.of(raw): raw for raw in (layer, config, manifest)}
        self.opened: list[Digest] = []

    def resolve(self) -> Descriptor:
        return self._root

    def open(self, descriptor: Descriptor) -> Blob:
        if (raw := self._ours.get(descriptor.digest)) is not None:
            return Blob(BytesIO(raw), descriptor)
        self.opened.append(descriptor.digest)
        return self._base.source.open(descriptor)


def test_of_an_image_on_top_of_another_the_new_layer_is_sent(
    tmp_path: Path, each: Dockerd, target: DaemonTarget
) -> None:
    base = image_layout(tmp_path / "base", seed=52, layers=2, layer_size=200_000)
    top = b"".join(random_tar("top", 100_000))
    target.save(LayoutSource(base.path), ["held/base:1"])
    with target.find("held/base:1") as found:
        assert found is not None
        source = OnTop(found, top)
        saved = target.save(source, ["held/app:1", "held/app:2"])
        assert saved.names == ("held/app:1", "held/app:2")
        assert source.opened == []
    diff_ids = [*base.diff_ids, Digest.of(top)]
    layers = each.run("image", "inspect", "--format", "{{json .RootFS.Layers}}", "held/app:2")
    assert json.loads(layers) == [str(diff_id) for diff_id in diff_ids]
    assert saved_layers(each, "held/app:2", tmp_path / "saved.tar") == diff_ids


def test_layers_that_the_daemon_lost_are_read_before(
    tmp_path: Path, each: Dockerd, dockerd: Dockerd, dockerd_26: Dockerd, target: DaemonTarget
) -> None:
    """What is found in one daemon can be saved in another, which has nothing of it."""
    base = image_layout(tmp_path / "base", seed=55, layers=3, layer_size=200_000)
    top = b"".join(random_tar("top", 1000))
    other = dockerd_26 if each is dockerd else dockerd
    target.save(LayoutSource(base.path), ["held/lost:1"])
    with target_of(other) as elsewhere, target.find("held/lost:1") as found:
        assert found is not None
        elsewhere.save(OnTop(found, top), ["held/moved:1"])
    diff_ids = [*base.diff_ids, Digest.of(top)]
    assert saved_layers(other, "held/moved:1", tmp_path / "saved.tar") == diff_ids


def test_a_layer_that_is_nowhere_is_not_found(tmp_path: Path, target: DaemonTarget) -> None:
    image = image_layout(tmp_path / "layout", seed=53, layers=1)
    target.save(LayoutSource(image.path), ["held/one:1"])
    with target.find("held/one:1") as found:
        assert found is not None
        other = replace(found.layers[0].blob, digest=Digest.of(b"other"))
        with pytest.raises(NotFound):
            found.source.open(other)


DROPPED = """
import os, sys
from ocistow.lifecycle.targets.daemon import DaemonTarget
from ocistow.oci.errors import RegistryError
from ocistow.publish.access import Access
from ocistow.publish.docker.engine import Engine
from ocistow.publish.docker.host import find_host

access = Access(docker_host=sys.argv[1])
with Engine(find_host(access), access.timeout) as engine, DaemonTarget(engine) as target:
    engine.reserve(3)
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    with target.find("held/dropped:1") as found, found.source.open(found.layers[0].blob) as blob:
        print(sum(map(len, blob)))
    with found.source.open(found.layers[1].blob) as blob:
        print(sum(map(len, blob)))
    try:
        with target.find("held/dropped:1") as found, found.source.open(found.layers[0].blob):
            pass
    except RegistryError as error:
        print(error.message)
"""


def test_a_daemon_is_reached_when_privileges_are_dropped(tmp_path: Path, dockerd: Dockerd) -> None:
    image = image_layout(tmp_path / "layout", seed=57, layers=2, layer_size=50_000)
    os.chmod(dockerd.host.removeprefix("unix://"), 0o600)
    with target_of(dockerd) as target:
        target.save(LayoutSource(image.path), ["held/dropped:1"])
    command = [sys.executable, "-c", DROPPED, dockerd.host]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["61440", "61440", "permission denied"], done.stderr


def test_names_that_a_daemon_cannot_give(tmp_path: Path, target: DaemonTarget) -> None:
    image = image_layout(tmp_path / "layout", seed=54, layers=1)
    with pytest.raises(InvalidContent, match="by tag only"):
        target.save(LayoutSource(image.path), [f"held/x@{image.manifest}"])
    saved = target.save(LayoutSource(image.path), ["held/y:1", f"held/x@{image.manifest}"])
    assert saved.names == ("held/y:1",)
    assert [name for name, _ in saved.failed] == [f"held/x@{image.manifest}"]
