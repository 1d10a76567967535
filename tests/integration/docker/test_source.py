"""Images of a real daemon, taken in."""

import gzip
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from ocistow.oci.digest import Digest
from ocistow.oci.errors import NotFound
from ocistow.oci.manifest import Manifest, parse_manifest
from ocistow.oci.reference import Reference
from ocistow.publish.access import Access
from ocistow.publish.copy import Copied, copy
from ocistow.publish.docker.engine import Engine
from ocistow.publish.layout import LayoutSource, StoreSink, StoreSource
from ocistow.publish.source import Stream, read_document
from ocistow.publish.transports import open_sink, open_source
from ocistow.store.ingest import Ingest
from ocistow.store.store import Store
from ocistow.testing.archives import oci_archive
from ocistow.testing.images import GeneratedImage, image_layout, index_layout

from ..conftest import Dockerd

pytestmark = pytest.mark.docker

NAME = Reference.parse("example.org/app:1")
LARGE = 200_000  # bytes of a layer; smaller ones are compressed in another place


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "store") as store:
        yield store


@pytest.fixture(params=["dockerd", "dockerd_26"])
def classic(request: pytest.FixtureRequest) -> Dockerd:
    """Each daemon with the classic image store: they save images in different forms."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Dockerd)
    return found


@pytest.fixture
def saves(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of which the daemon was asked for the whole stream."""
    asked: list[str] = []
    save = Engine.save

    def noted(self: Engine, name: str) -> AbstractContextManager[Stream]:
        asked.append(name)
        return save(self, name)

    monkeypatch.setattr(Engine, "save", noted)
    return asked


def load(dockerd: Dockerd, image: GeneratedImage, name: str) -> None:
    with open_sink(f"docker-daemon:{name}", access=Access(docker_host=dockerd.host)) as sink:
        copy(LayoutSource(image.path), sink)


def take(dockerd: Dockerd, store: Store, name: str, reference: Reference = NAME) -> Copied:
    access = Access(docker_host=dockerd.host)
    with open_source(f"docker-daemon:{name}", store, access=access) as source:
        return copy(source, StoreSink(store, reference))


def manifest_of(store: Store, reference: Reference = NAME) -> Manifest:
    source = StoreSource(store.layout(reference.path))
    root = source.resolve()
    manifest = parse_manifest(read_document(source, root), root)
    assert isinstance(manifest, Manifest)
    return manifest


@pytest.mark.parametrize("size", [4096, LARGE])
def test_an_unknown_image_is_taken_in_once(
    tmp_path: Path, classic: Dockerd, store: Store, saves: list[str], size: int
) -> None:
    image = image_layout(tmp_path / "image", seed=100 + size, layers=3, layer_size=size)
    load(classic, image, f"taken:{size}")
    first = take(classic, store, f"taken:{size}")
    assert first.root.annotations == {
        "org.opencontainers.image.ref.name": f"index.docker.io/library/taken:{size}"
    }
    assert (first.sent, len(saves)) == (5, 1)
    manifest = manifest_of(store)
    assert manifest.config.digest == image.config
    for layer, diff_id in zip(manifest.layers, image.diff_ids, strict=True):
        with open(store.blobs.open(layer.digest), "rb") as file:
            assert Digest.of(gzip.decompress(file.read())) == diff_id

    again = take(classic, store, f"taken:{size}", Reference.parse("example.org/again:1"))
    assert (again.sent, again.root.digest, len(saves)) == (0, first.root.digest, 1)


def test_an_image_that_the_store_published_comes_back_as_it_was(
    tmp_path: Path, each: Dockerd, store: Store, saves: list[str]
) -> None:
    image = image_layout(tmp_path / "image", seed=110, layers=3)
    copy(LayoutSource(image.path), StoreSink(store, Reference.parse("example.org/there:1")))
    load(each, image, "back:1")
    copied = take(each, store, "back:1")
    assert (copied.root.digest, copied.sent, saves) == (image.manifest, 0, [])


def test_only_layers_that_the_store_lacks_are_compressed(
    tmp_path: Path, classic: Dockerd, store: Store
) -> None:
    base = image_layout(tmp_path / "base", seed=120, layers=3, layer_size=LARGE)
    copy(LayoutSource(base.path), StoreSink(store, Reference.parse("example.org/base:1")))
    app = image_layout(tmp_path / "app", seed=121, layers=1, base=base, layer_size=LARGE)
    load(classic, app, "app:mixed")
    copied = take(classic, store, "app:mixed")
    assert (copied.sent, copied.present) == (3, 3)
    assert tuple(layer.digest for layer in manifest_of(store).layers[:3]) == base.layers


def test_a_new_config_over_known_layers_costs_no_layer(
    tmp_path: Path, classic: Dockerd, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = image_layout(tmp_path / "base", seed=130, layers=2, layer_size=LARGE)
    copy(LayoutSource(base.path), StoreSink(store, Reference.parse("example.org/base:1")))
    load(classic, base, "labelled:base")
    (tmp_path / "Dockerfile").write_text("FROM labelled:base\nLABEL a=b\n")
    classic.run("build", "--quiet", "--tag", "labelled:new", str(tmp_path))
    spooled: list[int] = []
    ingest = Ingest.write

    def noted(self: Ingest, data: bytes | memoryview) -> None:
        spooled.append(len(data))
        ingest(self, data)

    monkeypatch.setattr(Ingest, "write", noted)
    copied = take(classic, store, "labelled:new")
    manifest = manifest_of(store)
    assert tuple(layer.digest for layer in manifest.layers) == base.layers
    assert (copied.sent, copied.present) == (2, 2)
    assert sum(spooled) == manifest.config.size + copied.root.size


def test_an_image_may_be_named_by_its_identifier(
    tmp_path: Path, dockerd: Dockerd, store: Store
) -> None:
    image = image_layout(tmp_path / "image", seed=140, layers=1)
    load(dockerd, image, "identified:1")
    copied = take(dockerd, store, str(image.config))
    assert manifest_of(store).config.digest == image.config
    assert copied.root.annotations == {}


def test_an_image_that_the_daemon_lacks_is_not_found(each: Dockerd, store: Store) -> None:
    with pytest.raises(NotFound, match=f"library/none:1 of .*{each.host}"):
        take(each, store, "none:1")
    assert list(store.blobs) == []


def test_what_docker_save_writes_is_the_same_image(
    tmp_path: Path, classic: Dockerd, store: Store
) -> None:
    image = image_layout(tmp_path / "image", seed=150, layers=3, layer_size=LARGE)
    load(classic, image, "saved:1")
    expected = take(classic, store, "saved:1").root.digest
    classic.run("save", "--output", str(tmp_path / "saved.tar"), "saved:1")
    for text in (f"docker-archive:{tmp_path / 'saved.tar'}", "docker-archive:/dev/stdin"):
        command = [sys.executable, "-m", "ocistow.cli", "--store", str(tmp_path / "other"), "add"]
        with (tmp_path / "saved.tar").open("rb") as file:
            subprocess.run([*command, text, str(NAME)], check=True, stdin=file)
        with Store.open(tmp_path / "other") as other:
            assert StoreSource(other.layout(NAME.path)).resolve().digest == expected


def test_from_the_containerd_store_an_image_comes_as_it_is(
    tmp_path: Path, dockerd_26_containerd: Dockerd, store: Store, saves: list[str]
) -> None:
    image = image_layout(tmp_path / "image", seed=160, layers=3, layer_size=LARGE)
    load(dockerd_26_containerd, image, "contained:1")
    first = take(dockerd_26_containerd, store, "contained:1")
    assert (first.root.digest, first.sent, len(saves)) == (image.manifest, 5, 1)
    again = take(dockerd_26_containerd, store, "contained:1", Reference.parse("example.org/b:1"))
    assert (again.root.digest, again.sent, len(saves)) == (image.manifest, 0, 1)


def test_of_an_index_the_containerd_store_gives_what_it_has(
    tmp_path: Path, dockerd_26_containerd: Dockerd, store: Store, saves: list[str]
) -> None:
    """An index came without the manifests of other platforms, as a pull leaves it."""
    path = tmp_path / "image"
    index = index_layout(path, platforms=(("linux", "amd64"), ("linux", "arm64")))
    there, other = index.images
    for digest in {other.manifest, other.config, *other.layers} - set(there.layers):
        other.blob(digest).unlink()
    oci_archive(path, tmp_path / "index.tar")
    dockerd_26_containerd.run("load", "--input", str(tmp_path / "index.tar"))
    copied = take(dockerd_26_containerd, store, str(index.index))
    assert copied.root.digest == there.manifest
