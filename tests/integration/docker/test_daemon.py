from pathlib import Path

import pytest

from ocistow.oci.digest import Digest
from ocistow.oci.errors import RegistryError
from ocistow.oci.reference import Reference
from ocistow.publish.access import Access
from ocistow.publish.copy import Copied, copy
from ocistow.publish.layout import LayoutSource, StoreSink, StoreSource
from ocistow.publish.transports import open_sink, open_source
from ocistow.store.store import Store
from ocistow.testing.images import Compression, GeneratedImage, busybox_image, image_layout

from ..conftest import Dockerd

pytestmark = pytest.mark.docker


def publish(image: GeneratedImage, dockerd: Dockerd, name: str) -> Copied:
    with open_sink(f"docker-daemon:{name}", access=Access(docker_host=dockerd.host)) as sink:
        return copy(LayoutSource(image.path), sink)


def image_id(dockerd: Dockerd, name: str) -> str:
    return dockerd.run("image", "inspect", "--format", "{{.Id}}", name)


@pytest.mark.parametrize(("seed", "kind"), [(10, "gzip"), (12, "none")])
def test_only_layers_that_the_daemon_lacks_are_sent(
    tmp_path: Path, dockerd: Dockerd, seed: int, kind: Compression
) -> None:
    base = image_layout(tmp_path / "base", seed=seed, layers=3, compression=kind)
    publish(base, dockerd, f"sparse-base-{kind}")
    app = image_layout(tmp_path / "app", seed=seed + 1, layers=2, compression=kind, base=base)
    for digest in base.layers:
        app.blob(digest).unlink()
    copied = publish(app, dockerd, f"sparse-app-{kind}")
    assert (copied.sent, copied.present) == (4, 3)  # two layers, config and manifest
    assert image_id(dockerd, f"sparse-app-{kind}") == str(app.config)


def test_the_daemons_refusals_are_passed_on(tmp_path: Path, dockerd: Dockerd) -> None:
    image = image_layout(tmp_path / "layout", seed=30, layers=2)
    blob = image.blob(image.layers[0])
    blob.write_bytes(b"\0" * blob.stat().st_size)
    with pytest.raises(RegistryError) as raised:
        publish(image, dockerd, "refused")
    assert str(raised.value).startswith(f"docker daemon at {dockerd.host}: ")
    assert "\n" not in str(raised.value)
    assert "refused" not in dockerd.run("images")


def test_zstd_is_refused_in_one_line(tmp_path: Path, dockerd: Dockerd) -> None:
    image = image_layout(tmp_path / "layout", seed=31, layers=1)
    manifest = image.blob(image.manifest).read_bytes().replace(b"tar+gzip", b"tar+zstd")
    digest = Digest.of(manifest)
    image.blob(digest).write_bytes(manifest)
    index = (image.path / "index.json").read_text()
    (image.path / "index.json").write_text(index.replace(str(image.manifest), str(digest)))
    with pytest.raises(RegistryError, match="reads no zstd layers"):
        publish(image, dockerd, "zstd")


def test_what_docker_saves_is_added_and_comes_back(tmp_path: Path, dockerd: Dockerd) -> None:
    image = busybox_image(tmp_path / "layout", cmd=("/bin/echo", "saved"))
    publish(image, dockerd, "saved:1")
    archive = tmp_path / "saved.tar"
    dockerd.run("save", "--output", str(archive), "saved:1")
    name = Reference.parse("saved:1")
    with Store.create(tmp_path / "store") as store:
        for sent in (3, 0):
            with open_source(f"docker-archive:{archive}", store) as source:
                copied = copy(source, StoreSink(store, name))
            assert copied.sent == sent
        with open_sink("docker-daemon:back:1", access=Access(docker_host=dockerd.host)) as sink:
            copy(StoreSource(store.layout(name.path)), sink)
    assert image_id(dockerd, "back:1") == image_id(dockerd, "saved:1")
