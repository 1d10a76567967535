from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from ocistow.lifecycle.caches.cache import Cached
from ocistow.lifecycle.caches.image import ImageCache, open_image_cache
from ocistow.lifecycle.files.labels import CACHE_METADATA, CacheMetadata
from ocistow.lifecycle.images.config import Config
from ocistow.lifecycle.layers.tarball import LayerTar
from ocistow.lifecycle.targets.layout import LayoutTarget
from ocistow.oci.digest import Digest
from ocistow.oci.errors import InvalidContent
from ocistow.publish.compression import Compression

from ..saving_images import layer_of, save_image

NAME = "example/cache"
METADATA = CacheMetadata("sha256:" + "1" * 64)


def opened(target: LayoutTarget) -> AbstractContextManager[ImageCache]:
    return open_image_cache(NAME, target, Compression.parse("gzip"))


def tar_of(tar: LayerTar) -> bytes:
    stream = tar.open()
    try:
        return b"".join(iter(lambda: stream.read(1 << 20), b""))
    finally:
        stream.close()


def read(cache: ImageCache, diff_id: Digest) -> bytes:
    with cache.open(diff_id) as stream:
        return b"".join(iter(lambda: stream.read(1 << 20), b""))


@pytest.fixture
def target(tmp_path: Path) -> LayoutTarget:
    return LayoutTarget(tmp_path / "oci")


@pytest.fixture
def one(tmp_path: Path) -> LayerTar:
    return layer_of(tmp_path / "one", {"file": b"1" * 3_000_000})


@pytest.fixture
def two(tmp_path: Path) -> LayerTar:
    return layer_of(tmp_path / "two", {"file": b"2"})


def filled(target: LayoutTarget, *tars: LayerTar) -> list[Digest]:
    with opened(target) as cache:
        diff_ids = [cache.add(tar).diff_id for tar in tars]
        cache.commit(METADATA)
    return diff_ids


def blob_of(target: LayoutTarget, tmp_path: Path, number: int) -> Path:
    with target.find(NAME) as image:
        assert image is not None
        digest = image.layers[number].blob.digest
    (path,) = (tmp_path / "oci").rglob(f"blobs/sha256/{digest.encoded}")
    return path


def test_layers_and_metadata_come_back(target: LayoutTarget, one: LayerTar, two: LayerTar) -> None:
    first, second = filled(target, one, two)
    with opened(target) as cache:
        assert cache.exists
        assert cache.name == NAME
        assert cache.metadata() == METADATA
        assert read(cache, first) == tar_of(one)
        assert read(cache, second) == tar_of(two)


def test_there_need_not_be_an_image(target: LayoutTarget) -> None:
    with opened(target) as cache:
        assert not cache.exists
        assert cache.metadata() == CacheMetadata()
        with (
            pytest.raises(InvalidContent, match=r"^failed to find cache layer with SHA 'sha256:"),
            cache.open(Digest.of(b"")),
        ):
            pass
        assert not cache.keep(Digest.of(b""))


def test_nothing_is_saved_without_a_commit(target: LayoutTarget, one: LayerTar) -> None:
    with opened(target) as cache:
        cache.add(one)
    with target.find(NAME) as image:
        assert image is None


def test_what_did_not_change_is_reused(target: LayoutTarget, one: LayerTar, two: LayerTar) -> None:
    first, second = filled(target, one, two)
    with opened(target) as cache:
        assert cache.add(one, first) == Cached(first, reused=True)
        assert cache.add(one, second) == Cached(first, reused=False)
        cache.commit(METADATA)
        assert not cache.keep(Digest.of(b""))
    with target.find(NAME) as image:
        assert image is not None
        assert [layer.diff_id for layer in image.layers] == [first]
        assert image.config.labels == {CACHE_METADATA: METADATA.dump().decode()}


def test_a_lost_layer_is_added_again(
    target: LayoutTarget, one: LayerTar, two: LayerTar, tmp_path: Path
) -> None:
    first, second = filled(target, one, two)
    blob_of(target, tmp_path, 0).unlink()
    with opened(target) as cache:
        with pytest.raises(InvalidContent, match="failed to find cache layer"):
            read(cache, first)
        words = f"failed to find cache layer with SHA '{first}'"
        assert cache.add(one, first) == Cached(first, reused=False, fault=words)
        assert cache.keep(second)
        cache.commit(METADATA)
    with opened(target) as cache:
        assert read(cache, first) == tar_of(one)
        assert read(cache, second) == tar_of(two)


def test_a_damaged_layer_is_noticed(target: LayoutTarget, one: LayerTar, tmp_path: Path) -> None:
    (first,) = filled(target, one)
    blob = blob_of(target, tmp_path, 0)
    raw = bytearray(blob.read_bytes())
    raw[len(raw) // 2] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(raw)
    with (
        opened(target) as cache,
        pytest.raises(InvalidContent),
    ):
        read(cache, first)


def test_an_empty_cache_is_an_image_too(target: LayoutTarget) -> None:
    filled(target)
    with opened(target) as cache:
        assert cache.exists
        assert cache.metadata() == METADATA


@pytest.mark.parametrize("label", ["", "{", "[]"])
def test_a_label_that_is_not_understood_is_none(target: LayoutTarget, label: str) -> None:
    save_image(target, NAME, Config(labels={CACHE_METADATA: label}))
    with opened(target) as cache:
        assert cache.metadata() == CacheMetadata()
