"""Layers and images that the store has are recognised, and only by what was seen."""

import gzip
import json
import tarfile
from pathlib import Path

import pytest

from ocistow.oci.descriptor import OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.errors import NotFound
from ocistow.oci.manifest import Manifest, parse_manifest
from ocistow.oci.reference import Reference
from ocistow.publish.copy import Copied, copy
from ocistow.publish.layout import LayoutSource, StoreSink
from ocistow.publish.recognition import Recognition
from ocistow.publish.source import read_document
from ocistow.publish.transports import open_source
from ocistow.store.index.layers import Layer
from ocistow.store.ingest import Ingest
from ocistow.store.store import Store
from ocistow.testing.archives import docker_archive
from ocistow.testing.images import Compression, GeneratedImage, image_layout

BASE = Reference.parse("example.org/base:1")
APP = Reference.parse("example.org/app:1")


def add(store: Store, text: str, name: Reference = APP) -> Copied:
    with open_source(text, store) as source:
        return copy(source, StoreSink(store, name))


def layers_of(store: Store, copied: Copied) -> tuple[Digest, ...]:
    manifest = parse_manifest(
        read_document(LayoutSource(store.layouts / APP.path), copied.root), copied.root
    )
    assert isinstance(manifest, Manifest)
    return tuple(layer.digest for layer in manifest.layers)


@pytest.fixture
def app(tmp_path: Path, image: GeneratedImage) -> GeneratedImage:
    return image_layout(tmp_path / "app", seed=7, layers=2, base=image)


@pytest.fixture
def saved(tmp_path: Path, app: GeneratedImage) -> Path:
    docker_archive(tmp_path / "app.tar", {"app:1": app})
    return tmp_path / "app.tar"


@pytest.fixture
def inflated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was inflated to see what it is."""
    seen: list[str] = []
    inflate = Recognition._inflate  # pyright: ignore[reportPrivateUsage] - to count it

    def noted(self: Recognition, blob: Descriptor, algorithm: str) -> Layer | None:
        seen.append(str(blob))
        return inflate(self, blob, algorithm)

    monkeypatch.setattr(Recognition, "_inflate", noted)
    return seen


def test_layers_of_the_store_are_used_and_not_compressed_again(
    store: Store, image: GeneratedImage, app: GeneratedImage, saved: Path
) -> None:
    copy(LayoutSource(image.path), StoreSink(store, BASE))
    copied = add(store, f"docker-archive:{saved}")
    assert (copied.sent, copied.present) == (4, 3)  # two layers, config and manifest
    assert layers_of(store, copied)[:3] == image.layers


def test_an_image_of_the_store_comes_back_as_it_was(
    store: Store, app: GeneratedImage, saved: Path
) -> None:
    copy(LayoutSource(app.path), StoreSink(store, BASE))
    pool = set(store.blobs)
    copied = add(store, f"docker-archive:{saved}")
    assert (copied.sent, copied.root.digest) == (0, app.manifest)
    assert set(store.blobs) == pool


def test_what_an_image_says_is_checked_once(
    store: Store, image: GeneratedImage, saved: Path, inflated: list[str]
) -> None:
    copy(LayoutSource(image.path), StoreSink(store, BASE))
    add(store, f"docker-archive:{saved}")
    assert len(inflated) == 3
    add(store, f"docker-archive:{saved}", Reference.parse("example.org/again:1"))
    assert len(inflated) == 3


def test_an_image_cannot_choose_the_layers_of_another(
    tmp_path: Path, store: Store, app: GeneratedImage, saved: Path
) -> None:
    """An image whose config says that its own layers are those of another is not believed."""
    evil = image_layout(tmp_path / "evil", seed=66, layers=5)
    config = json.loads(evil.blob(evil.config).read_bytes())
    config["rootfs"]["diff_ids"] = [str(diff_id) for diff_id in app.diff_ids]
    put_config(evil, json.dumps(config | {"author": "evil"}).encode())
    copy(LayoutSource(evil.path), StoreSink(store, Reference.parse("a.org/evil:1")))
    copied = add(store, f"docker-archive:{saved}")
    assert copied.sent == 7
    for digest, diff_id in zip(layers_of(store, copied), app.diff_ids, strict=True):
        with open(store.blobs.open(digest), "rb") as file:
            assert Digest.of(gzip.decompress(file.read())) == diff_id


def test_an_image_whose_config_is_of_another_is_not_that_image(
    tmp_path: Path, store: Store, app: GeneratedImage, saved: Path
) -> None:
    evil = image_layout(tmp_path / "evil", seed=66, layers=5)
    put_config(evil, app.blob(app.config).read_bytes())
    copy(LayoutSource(evil.path), StoreSink(store, Reference.parse("a.org/evil:1")))
    copied = add(store, f"docker-archive:{saved}")
    assert not set(layers_of(store, copied)) & set(evil.layers)


def put_config(image: GeneratedImage, config: bytes) -> None:
    """Give an image another config, and a manifest and index for it."""
    blobs = image.path / "blobs" / "sha256"
    (blobs / Digest.of(config).encoded).write_bytes(config)
    manifest = json.loads(image.blob(image.manifest).read_bytes())
    manifest["config"] |= {"digest": str(Digest.of(config)), "size": len(config)}
    raw = json.dumps(manifest).encode()
    (blobs / Digest.of(raw).encoded).write_bytes(raw)
    index = json.loads((image.path / "index.json").read_bytes())
    index["manifests"][0] |= {"digest": str(Digest.of(raw)), "size": len(raw)}
    (image.path / "index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(("kind", "media"), [("gzip", OCI_LAYER_GZIP), ("none", OCI_LAYER)])
def test_the_media_type_is_what_was_seen(
    tmp_path: Path, store: Store, kind: Compression, media: str
) -> None:
    docker = image_layout(tmp_path / "docker", layers=2, compression=kind, media="docker")
    copy(LayoutSource(docker.path), StoreSink(store, BASE))
    found = Recognition(store).layers(docker.diff_ids)
    assert [found[diff_id].digest for diff_id in docker.diff_ids] == list(docker.layers)
    assert {blob.media_type for blob in found.values()} == {media}


def test_zstd_layers_are_recognised(tmp_path: Path, store: Store) -> None:
    image = image_layout(tmp_path / "zstd", layers=2, compression="zstd")
    copy(LayoutSource(image.path), StoreSink(store, BASE))
    found = Recognition(store).layers(image.diff_ids)
    assert [found[diff_id].digest for diff_id in image.diff_ids] == list(image.layers)
    assert {blob.media_type for blob in found.values()} == {OCI_LAYER_ZSTD}


def test_a_layer_that_is_gone_is_not_recognised(
    store: Store, image: GeneratedImage, app: GeneratedImage, saved: Path
) -> None:
    copy(LayoutSource(image.path), StoreSink(store, BASE))
    recognition = Recognition(store)
    assert len(recognition.layers(app.diff_ids)) == 3
    store.blobs.delete(image.layers[0])
    assert len(recognition.layers(app.diff_ids)) == 2
    assert recognition.image(image.config) is None
    assert add(store, f"docker-archive:{saved}").sent == 5


def test_what_the_store_has_need_not_be_in_the_archive(
    tmp_path: Path, store: Store, image: GeneratedImage, saved: Path
) -> None:
    sparse = tmp_path / "sparse.tar"
    with tarfile.open(saved) as old, tarfile.open(sparse, "w") as new:
        for member in old:
            if member.name.split("/")[0] not in {diff_id.encoded for diff_id in image.diff_ids}:
                new.addfile(member, old.extractfile(member))
    missing = [rf"'{diff_id.encoded}/layer.tar' \({diff_id}\)" for diff_id in image.diff_ids]
    with pytest.raises(NotFound, match=", ".join(missing)):
        add(store, f"docker-archive:{sparse}")
    copy(LayoutSource(image.path), StoreSink(store, BASE))
    assert layers_of(store, add(store, f"docker-archive:{sparse}"))[:3] == image.layers


def test_nothing_is_compressed_when_an_archive_is_added_twice(
    store: Store, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = add(store, f"docker-archive:{saved}")
    written: list[int] = []

    def noted(self: Ingest, data: bytes) -> None:
        written.append(len(data))

    monkeypatch.setattr(Ingest, "write", noted)
    second = add(store, f"docker-archive:{saved}", Reference.parse("example.org/again:1"))
    assert (second.root.digest, second.sent, written) == (first.root.digest, 0, [])


def test_without_the_database_it_only_takes_longer(
    store: Store,
    image: GeneratedImage,
    app: GeneratedImage,
    saved: Path,
    inflated: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    copy(LayoutSource(image.path), StoreSink(store, BASE))
    database = store.path / "index.sqlite"
    database.unlink(missing_ok=True)
    (database / "full").mkdir(parents=True)  # which nobody may remove
    for name in ("one", "two"):
        with open_source(f"docker-archive:{saved}", store) as source:
            copied = copy(source, StoreSink(store, Reference.parse(f"example.org/{name}:1")))
    assert len(inflated) == 8  # the three of the base, and then all five
    assert copied.sent == 0
    assert "going on without it" in caplog.text
    assert "[Errno" not in caplog.text
