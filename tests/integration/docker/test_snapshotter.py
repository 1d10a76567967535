"""containerd's image store: what it keeps, and the images that only look as if they were there."""

import gzip
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ocistow.oci.descriptor import OCI_INDEX, OCI_MANIFEST, REF_NAME, Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.errors import RegistryError
from ocistow.oci.manifest import Index
from ocistow.oci.reference import Reference
from ocistow.publish.access import TIMEOUT, Access
from ocistow.publish.archives.layout_tar import IMAGE_NAME
from ocistow.publish.archives.tarstream import Entry, TarStream
from ocistow.publish.copy import Copied, copy
from ocistow.publish.docker.engine import Engine
from ocistow.publish.docker.host import Host
from ocistow.publish.layout import LayoutSource, StoreSink, StoreSource
from ocistow.publish.sink import Action
from ocistow.publish.source import Blob
from ocistow.publish.transports import open_sink
from ocistow.store.store import Store
from ocistow.testing.images import GeneratedImage, image_layout, index_layout

from ..conftest import Dockerd

pytestmark = pytest.mark.docker


@pytest.fixture
def dockerd(dockerd_26_containerd: Dockerd) -> Dockerd:
    return dockerd_26_containerd


@pytest.fixture
def engine(dockerd: Dockerd) -> Iterator[Engine]:
    with Engine(Host.parse(dockerd.host), TIMEOUT) as engine:
        yield engine


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "store") as store:
        yield store


def publish(store: Store, image: GeneratedImage, dockerd: Dockerd, name: str) -> Copied:
    reference = Reference.parse(name)
    copy(LayoutSource(image.path), StoreSink(store, reference))
    access = Access(docker_host=dockerd.host)
    with open_sink(f"docker-daemon:{name}", store, access=access) as sink:
        return copy(StoreSource(store.layout(reference.path)), sink)


def load_plain(engine: Engine, image: GeneratedImage, name: str) -> None:
    """Load an image as `docker save` of a classic store writes it, without compressed layers."""
    layers = [gzip.decompress(image.blob(digest).read_bytes()) for digest in image.layers]
    names = [f"{digest.encoded}.tar" for digest in image.diff_ids]
    entries = [
        Entry.of("config.json", image.blob(image.config).read_bytes()),
        *map(Entry.of, names, layers),
        Entry.of(
            "manifest.json",
            json.dumps([{"Config": "config.json", "RepoTags": [name], "Layers": names}]).encode(),
        ),
    ]
    engine.load(TarStream(entries, LayoutSource(image.path)))


def load_layout(
    engine: Engine, image: GeneratedImage, name: str, blobs: Sequence[Digest], root: bytes = b""
) -> None:
    """Load an image layout with only some of its blobs, as anybody may."""
    manifest = image.blob(image.manifest).read_bytes()
    names = {IMAGE_NAME: f"docker.io/{name}", REF_NAME: name.partition(":")[2]}
    media_type = OCI_INDEX if root else OCI_MANIFEST
    top = root or manifest
    described = Descriptor(media_type, Digest.of(top), len(top), names)
    contents = {top, manifest, *(image.blob(digest).read_bytes() for digest in blobs)}
    entries = [
        Entry.of("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'),
        Entry.of("index.json", Index.of([described]).raw),
        *(Entry.of(f"blobs/sha256/{Digest.of(content).encoded}", content) for content in contents),
    ]
    engine.load(TarStream(entries, LayoutSource(image.path)))


def assert_complete(engine: Engine, image: GeneratedImage, name: str, path: Path) -> None:
    """See that docker lists the image, and saves every blob of it as it was."""
    assert engine.complete(name) == {image.manifest}
    found = engine.image(name)
    assert found is not None
    assert found.digest == image.manifest
    with tarfile.open(path) as archive:
        names = archive.getnames()
        for digest in (image.manifest, image.config, *image.layers):
            assert f"blobs/sha256/{digest.encoded}" in names


def save(dockerd: Dockerd, name: str, path: Path) -> Path:
    dockerd.run("image", "save", "--output", str(path), name)
    return path


def test_an_image_is_kept_bit_for_bit(
    tmp_path: Path, store: Store, dockerd: Dockerd, engine: Engine
) -> None:
    image = image_layout(tmp_path / "layout", seed=100, layers=3)
    copied = publish(store, image, dockerd, "kept/it:1")
    assert (copied.sent, copied.losses) == (5, ())
    path = save(dockerd, "kept/it:1", tmp_path / "saved.tar")
    assert_complete(engine, image, "kept/it:1", path)
    assert publish(store, image, dockerd, "kept/it:1").sent == 0
    assert publish(store, image, dockerd, "kept/other:1").sent == 0
    assert engine.complete("kept/other:1") == {image.manifest}


def test_layers_that_are_unpacked_but_have_no_blobs_are_sent(
    tmp_path: Path, store: Store, dockerd: Dockerd, engine: Engine
) -> None:
    base = image_layout(tmp_path / "base", seed=110, layers=2)
    app = image_layout(tmp_path / "app", seed=111, layers=1, base=base)
    load_plain(engine, base, "hazard/base:1")

    # the hazard: docker says that it has loaded an image that it has not
    load_layout(engine, app, "hazard/app:1", [app.config, app.layers[-1]])
    found = engine.image("hazard/app:1")
    assert found is not None
    assert found.digest == app.manifest
    assert app.manifest not in engine.complete("hazard/app:1")
    with tarfile.open(save(dockerd, "hazard/app:1", tmp_path / "broken.tar")) as archive:
        assert f"blobs/sha256/{app.layers[0].encoded}" not in archive.getnames()

    copied = publish(store, app, dockerd, "hazard/app:1")
    assert copied.count(Action.SENT) == 5
    path = save(dockerd, "hazard/app:1", tmp_path / "saved.tar")
    assert_complete(engine, app, "hazard/app:1", path)


def test_an_image_that_only_looks_complete_gives_no_layers(
    tmp_path: Path, store: Store, dockerd: Dockerd, engine: Engine
) -> None:
    base = image_layout(tmp_path / "base", seed=120, layers=2)
    first = image_layout(tmp_path / "first", seed=121, layers=1, base=base)
    second = image_layout(tmp_path / "second", seed=122, layers=1, base=base)
    copy(LayoutSource(first.path), StoreSink(store, Reference.parse("looks/app:1")))
    load_plain(engine, base, "looks/base:1")
    load_layout(engine, first, "looks/app:1", [first.config, first.layers[-1]])
    assert publish(store, second, dockerd, "looks/app:1").sent == 5
    path = save(dockerd, "looks/app:1", tmp_path / "saved.tar")
    assert_complete(engine, second, "looks/app:1", path)


def test_blobs_that_vanish_after_the_probe_are_sent_though_they_are_unpacked(
    tmp_path: Path, store: Store, dockerd: Dockerd, engine: Engine
) -> None:
    base = image_layout(tmp_path / "base", seed=130, layers=2)
    app = image_layout(tmp_path / "app", seed=131, layers=1, base=base)
    load_plain(engine, base, "unpacked/plain:1")
    publish(store, base, dockerd, "unpacked/app:1")

    class Vanishing(StoreSource):
        """Before the load, the snapshots of the base stay, but its blobs do not."""

        def open(self, descriptor: Descriptor) -> Blob:
            if descriptor.digest == app.layers[-1] and engine.complete("unpacked/app:1"):
                dockerd.run("image", "rm", "--force", "unpacked/app:1")
            return super().open(descriptor)

    copy(LayoutSource(app.path), StoreSink(store, Reference.parse("unpacked/app:2")))
    source = Vanishing(store.layout(Reference.parse("unpacked/app:2").path))
    access = Access(docker_host=dockerd.host)
    with open_sink("docker-daemon:unpacked/app:1", store, access=access) as sink:
        assert copy(source, sink).present == 2
    path = save(dockerd, "unpacked/app:1", tmp_path / "saved.tar")
    assert_complete(engine, app, "unpacked/app:1", path)


def test_a_run_image_that_is_an_index_gives_its_layers(
    tmp_path: Path, store: Store, dockerd: Dockerd, engine: Engine
) -> None:
    index = index_layout(tmp_path / "index", seed=140, layers=3, layer_size=10 << 20)
    [base, _] = index.images
    copy(LayoutSource(index.path), StoreSink(store, Reference.parse("index/run:1")))
    root = base.blob(index.index).read_bytes()
    load_layout(engine, base, "index/run:1", [base.config, *base.layers], root)
    found = engine.image("index/run:1")
    assert found is not None
    assert found.digest == index.index
    app = image_layout(tmp_path / "app", seed=141, layers=1, base=base)
    assert publish(store, app, dockerd, "index/app:1").present == 3
    path = save(dockerd, "index/app:1", tmp_path / "saved.tar")
    assert_complete(engine, app, "index/app:1", path)


def test_of_an_index_the_daemons_platform_is_sent_and_said(
    tmp_path: Path, store: Store, dockerd: Dockerd
) -> None:
    index = index_layout(tmp_path / "index", seed=150)
    access = Access(docker_host=dockerd.host)
    with open_sink("docker-daemon:index/two:1", store, access=access) as sink:
        copied = copy(LayoutSource(index.path), sink)
    assert copied.root.digest == index.images[0].manifest
    assert copied.losses == ("other platforms",)


def test_a_refused_image_leaves_nothing_behind(
    tmp_path: Path, store: Store, dockerd: Dockerd, engine: Engine
) -> None:
    image = image_layout(tmp_path / "layout", seed=160, layers=2)
    blob = image.blob(image.layers[0])
    blob.write_bytes(b"\0" * blob.stat().st_size)
    access = Access(docker_host=dockerd.host)
    with (
        pytest.raises(RegistryError, match=r"digest|checksum"),
        open_sink("docker-daemon:refused:1", store, access=access) as sink,
    ):
        copy(LayoutSource(image.path), sink)
    assert engine.image(str(image.manifest)) is None
    assert engine.image("refused:1") is None
