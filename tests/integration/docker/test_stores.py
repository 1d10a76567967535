"""What every Docker daemon does with an image from a store, whichever image store it has."""

import gzip
import json
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ocistow.oci.descriptor import Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.errors import RegistryError
from ocistow.oci.reference import Reference
from ocistow.publish.access import TIMEOUT, Access
from ocistow.publish.copy import Copied, copy
from ocistow.publish.docker.engine import Engine
from ocistow.publish.docker.host import Host
from ocistow.publish.layout import LayoutSource, StoreSink, StoreSource
from ocistow.publish.source import Blob, Source
from ocistow.publish.transports import open_sink
from ocistow.store.store import Store
from ocistow.testing.images import GeneratedImage, busybox_image, image_layout

from ..conftest import Dockerd

pytestmark = pytest.mark.docker


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "store") as store:
        yield store


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A repository of this test's own."""
    return "test/" + "".join(c if c.isalnum() else "-" for c in request.node.name.lower()).strip(
        "-"
    )


def add(store: Store, image: GeneratedImage, name: str) -> StoreSource:
    reference = Reference.parse(name)
    copy(LayoutSource(image.path), StoreSink(store, reference))
    return StoreSource(store.layout(reference.path))


def publish(source: Source, dockerd: Dockerd, name: str, store: Store) -> Copied:
    access = Access(docker_host=dockerd.host)
    with open_sink(f"docker-daemon:{name}", store, access=access) as sink:
        return copy(source, sink)


def assert_saved(dockerd: Dockerd, name: str, image: GeneratedImage, path: Path) -> None:
    """Save the image, and compare every layer's plain content with its diffID."""
    dockerd.run("image", "save", "--output", str(path), name)
    with tarfile.open(path) as archive:

        def content(member: str) -> bytes:
            file = archive.extractfile(member)
            assert file is not None
            return file.read()

        [entry] = json.loads(content("manifest.json"))
        assert Digest.of(content(entry["Config"])) == image.config
        for member, diff_id in zip(entry["Layers"], image.diff_ids, strict=True):
            layer = content(member)
            assert Digest.of(gzip.decompress(layer) if layer[:1] == b"\x1f" else layer) == diff_id


def test_a_published_image_runs(tmp_path: Path, store: Store, each: Dockerd, name: str) -> None:
    image = busybox_image(tmp_path / "layout", cmd=("/bin/echo", name))
    source = add(store, image, name)
    assert publish(source, each, name, store).sent > 0  # others may have brought the layer
    assert each.run("run", "--rm", "--network", "none", name) == name
    assert publish(source, each, name, store).sent == 0
    assert publish(source, each, f"localhost:5000/other/{name}:2", store).sent == 0
    assert each.run("run", "--rm", "--network", "none", f"localhost:5000/other/{name}:2") == name


@pytest.mark.parametrize("at", ["same", "other"])
def test_a_second_build_sends_what_is_new(
    tmp_path: Path, store: Store, each: Dockerd, name: str, at: str
) -> None:
    # other names are looked at by containerd's store when that is worth it: from 16 MiB
    size = 4096 if at == "same" else 10 << 20
    base = image_layout(tmp_path / "base", seed=40, layers=2, layer_size=size)
    publish(add(store, base, f"{name}:base"), each, f"{name}:same", store)
    app = image_layout(tmp_path / "app", seed=41, layers=1, base=base)
    source = add(store, app, f"{name}:app")
    for digest in base.layers:
        (store.path / "blobs" / "sha256" / digest.encoded).unlink()
        for blob in store.layouts.rglob(digest.encoded):
            blob.unlink()
    copied = publish(source, each, f"{name}:{at}", store)
    assert (copied.sent, copied.present) == (3, 2)  # the layer, the config and the manifest
    assert_saved(each, f"{name}:{at}", app, tmp_path / "saved.tar")


def test_a_base_that_vanishes_after_the_probe_is_sent(
    tmp_path: Path, store: Store, each: Dockerd, name: str
) -> None:
    base = image_layout(tmp_path / "base", seed=50, layers=2)
    publish(add(store, base, f"{name}:base"), each, f"{name}:1", store)
    app = image_layout(tmp_path / "app", seed=51, layers=1, base=base)
    add(store, app, f"{name}:app")

    class Vanishing(StoreSource):
        """Its own layer is opened after the probe and before the load."""

        def open(self, descriptor: Descriptor) -> Blob:
            if descriptor.digest == app.layers[-1] and f"{name}:1" in images(each):
                each.run("image", "rm", "--force", f"{name}:1")
            return super().open(descriptor)

    source = Vanishing(store.layout(Reference.parse(f"{name}:app").path))
    assert publish(source, each, f"{name}:1", store).present == 2
    assert_saved(each, f"{name}:1", app, tmp_path / "saved.tar")


def test_content_that_is_not_the_layer_is_refused(
    tmp_path: Path, store: Store, each: Dockerd, name: str
) -> None:
    first = busybox_image(tmp_path / "first", cmd=("/bin/echo", "first"))
    publish(add(store, first, name), each, name, store)
    image = image_layout(tmp_path / "layout", seed=60, layers=2)
    config = image.blob(image.config).read_bytes()
    lying = config.replace(image.diff_ids[1].encoded.encode(), f"{6:064x}".encode())
    manifest = json.loads(image.blob(image.manifest).read_bytes())
    manifest["config"]["digest"] = str(Digest.of(lying))
    root = write(image, manifest, lying)
    with pytest.raises(RegistryError) as raised:
        publish(LayoutSource(image.path), each, name, store)
    assert str(raised.value).startswith(f"docker daemon at {each.host}: ")
    assert "\n" not in str(raised.value)
    assert each.run("run", "--rm", "--network", "none", name) == "first"
    with Engine(Host.parse(each.host), TIMEOUT) as engine:
        assert engine.image(str(root)) is None


def test_layers_of_several_gzip_members_arrive(
    tmp_path: Path, store: Store, each: Dockerd, name: str
) -> None:
    image = image_layout(tmp_path / "layout", seed=70, layers=1)
    plain = gzip.decompress(image.blob(image.layers[0]).read_bytes())
    packed = gzip.compress(plain[:512], mtime=0) + gzip.compress(plain[512:], mtime=0)
    manifest = json.loads(image.blob(image.manifest).read_bytes())
    manifest["layers"][0] |= {"digest": str(Digest.of(packed)), "size": len(packed)}
    write(image, manifest, packed)
    publish(LayoutSource(image.path), each, name, store)
    assert_saved(each, name, image, tmp_path / "saved.tar")


def test_two_images_with_common_layers_may_come_at_once(
    tmp_path: Path, store: Store, each: Dockerd, name: str
) -> None:
    base = image_layout(tmp_path / "base", seed=80, layers=2, layer_size=1 << 20)
    apps = [
        image_layout(tmp_path / str(number), seed=81 + number, layers=1, base=base)
        for number in range(2)
    ]
    sources = [add(store, app, f"{name}:{number}") for number, app in enumerate(apps)]
    with ThreadPoolExecutor(2) as executor:
        loads = [
            executor.submit(publish, source, each, f"{name}:{number}", store)
            for number, source in enumerate(sources)
        ]
        for load in loads:
            load.result()
    for number, app in enumerate(apps):
        assert_saved(each, f"{name}:{number}", app, tmp_path / f"{number}.tar")


def images(dockerd: Dockerd) -> str:
    return dockerd.run("image", "ls", "--all", "--format", "{{.Repository}}:{{.Tag}}")


def write(image: GeneratedImage, manifest: dict[str, object], blob: bytes) -> Digest:
    """Make this the only manifest of the layout, add a blob, and return its digest."""
    raw = json.dumps(manifest).encode()
    for content in (raw, blob):
        image.blob(Digest.of(content)).write_bytes(content)
    entry = {"mediaType": manifest["mediaType"], "digest": str(Digest.of(raw)), "size": len(raw)}
    (image.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return Digest.of(raw)
