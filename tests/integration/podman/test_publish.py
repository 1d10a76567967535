import os
import tempfile
from pathlib import Path

import pytest

from ocistow.oci.errors import InvalidContent, NotFound, RegistryError
from ocistow.oci.reference import Reference
from ocistow.publish.copy import Copied, copy
from ocistow.publish.layout import LayoutSource, StoreSink, StoreSource
from ocistow.publish.transports import open_sink
from ocistow.store.store import Store
from ocistow.testing.images import GeneratedImage, busybox_image, image_layout, index_layout

from .conftest import Podman

pytestmark = pytest.mark.podman

NAME = "docker.io/library/app:1"


def publish(layout: Path, name: str) -> Copied:
    with open_sink(f"podman:{name}") as sink:
        return copy(LayoutSource(layout), sink)


@pytest.fixture
def image(tmp_path: Path) -> GeneratedImage:
    return image_layout(tmp_path / "layout", seed=90)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for temporary files, whose name no image could have."""
    directory = tmp_path / "Temporary__"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))

    return directory


def test_an_image_keeps_its_digest(podman: Podman, image: GeneratedImage, temporary: Path) -> None:
    copied = publish(image.path, "app:1")
    assert (copied.sent, copied.losses) == (5, ())
    assert podman.digests() == {NAME: str(image.manifest)}
    assert podman.run("image", "inspect", "--format", "{{.Id}}", NAME) == image.config.encoded
    assert os.listdir(temporary) == []


def test_podman_reads_the_blobs_of_the_store(tmp_path: Path, podman: Podman) -> None:
    image = busybox_image(tmp_path / "layout")
    name = Reference.parse("example.org/app:1")
    with Store.create(tmp_path / "store") as store:
        copy(LayoutSource(image.path), StoreSink(store, name))
        with open_sink("podman:example.org/app:2", store) as sink:
            copy(StoreSource(store.layout(name.path)), sink)
    assert podman.digests() == {"example.org/app:2": str(image.manifest)}
    mounted = Path(podman.run("image", "mount", "example.org/app:2"))
    assert (mounted / "bin" / "busybox").is_file()
    podman.run("image", "unmount", "--all")


def test_an_image_that_is_there_is_not_read(podman: Podman, image: GeneratedImage) -> None:
    publish(image.path, "app:1")
    for digest in (image.config, *image.layers):
        image.blob(digest).unlink()
    assert publish(image.path, "app:1").sent == 0


def test_layers_that_podman_has_may_be_missing_here(
    tmp_path: Path, podman: Podman, image: GeneratedImage
) -> None:
    publish(image.path, "base:1")
    app = image_layout(tmp_path / "app", seed=91, layers=1, base=image)
    for digest in image.layers:
        app.blob(digest).unlink()
    assert publish(app.path, "app:1").present == 3
    assert podman.digests()[NAME] == str(app.manifest)


def test_a_layer_that_nobody_has_is_named(
    podman: Podman, image: GeneratedImage, temporary: Path
) -> None:
    image.blob(image.layers[1]).unlink()
    with pytest.raises(NotFound) as raised:
        publish(image.path, "app:1")
    assert raised.value.name == image.layers[1]
    assert podman.digests() == {}
    assert os.listdir(temporary) == []


def test_a_name_moves(tmp_path: Path, podman: Podman, image: GeneratedImage) -> None:
    publish(image.path, "app:1")
    newer = image_layout(tmp_path / "newer", seed=92)
    publish(newer.path, "app:1")
    assert podman.digests()[NAME] == str(newer.manifest)


def test_of_an_index_this_machines_image_is_kept(tmp_path: Path, podman: Podman) -> None:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    index = index_layout(tmp_path / "index", platforms=[("linux", "s390x"), ("linux", machine)])
    assert publish(index.path, "app:1").root.digest == index.images[1].manifest
    assert podman.digests() == {NAME: str(index.images[1].manifest)}


def test_a_damaged_layer_is_refused(podman: Podman, image: GeneratedImage) -> None:
    layer = image.blob(image.layers[0])
    layer.write_bytes(bytes(layer.stat().st_size))
    with pytest.raises(RegistryError, match="podman: ") as raised:
        publish(image.path, "app:1")
    assert "\n" not in str(raised.value)
    assert podman.digests() == {}


def test_relative_settings_stay_what_they_are(
    tmp_path: Path, podman: Podman, image: GeneratedImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", "storage.conf")
    publish(image.path, "app:1")
    assert podman.digests() == {NAME: str(image.manifest)}


def test_a_digest_is_no_name(image: GeneratedImage) -> None:
    with pytest.raises(InvalidContent, match="by tag only"):
        publish(image.path, f"app@{image.manifest}")


def test_without_podman_the_reason_is_told(
    tmp_path: Path, image: GeneratedImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RegistryError, match="the program 'podman' is not on PATH"):
        publish(image.path, "app:1")
