"""A cache directory on the mount: its renames, hard links and locks are as anywhere else."""

from __future__ import annotations

import io
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from ocistow.lifecycle.caches.directory import DirectoryCache
from ocistow.lifecycle.files.labels import CacheMetadata
from ocistow.lifecycle.layers.extract import extract
from ocistow.lifecycle.layers.trees import dir_layer
from ocistow.oci.errors import Busy

pytestmark = pytest.mark.fuse

METADATA = CacheMetadata("sha256:" + "1" * 64)


def test_layers_are_cached_reused_and_changed(here: Path, tmp_path: Path) -> None:
    cache, layer = here / "cache", tmp_path / "layers" / "bp" / "layer"
    cache.mkdir()
    layer.mkdir(parents=True)
    (layer / "same").write_bytes(b"1" * 2_000_000)
    (layer / "z").write_bytes(b"old")
    with DirectoryCache(cache) as opened:
        first = opened.add(dir_layer("bp:layer", layer, 0, 0))
        opened.commit(METADATA)
    with DirectoryCache(cache) as opened:
        again = opened.add(dir_layer("bp:layer", layer, 0, 0), first.diff_id)
        assert again.reused
        opened.commit(METADATA)
    (layer / "z").write_bytes(b"new")
    with DirectoryCache(cache) as opened:
        assert opened.metadata() == METADATA
        other = opened.add(dir_layer("bp:layer", layer, 0, 0), first.diff_id)
        assert not other.reused
        with DirectoryCache(cache, timeout=0) as second, pytest.raises(Busy):
            second.commit(METADATA)
        opened.commit(METADATA)
    assert sorted(path.name for path in cache.iterdir()) == ["committed"]
    assert len(list((cache / "committed").iterdir())) == 2
    with DirectoryCache(cache) as opened, opened.open(other.diff_id) as stream:
        shutil.rmtree(layer)
        extract(stream, tmp_path / "layers")
    assert (layer / "z").read_bytes() == b"new"
    assert (layer / "same").stat().st_size == 2_000_000


def test_layers_can_be_restored_to_the_mount(here: Path) -> None:
    layer = here / "layers" / "bp" / "layer"
    (layer / "below").mkdir(parents=True)
    (layer / "below" / "file").write_bytes(b"content")
    (layer / "link").symlink_to("below/file")
    with closing(dir_layer("bp:layer", layer, 0, 0).open()) as stream:
        tar = stream.read(1 << 20)
        while data := stream.read(1 << 20):
            tar += data
    shutil.rmtree(layer)
    extract(io.BytesIO(tar), here / "layers")
    assert (layer / "link").read_bytes() == b"content"


def test_a_cache_that_was_left_half_committed_is_whole(here: Path, tmp_path: Path) -> None:
    (tmp_path / "layer").mkdir()
    cache = here / "cache"
    cache.mkdir()
    with DirectoryCache(cache) as opened:
        diff_id = opened.add(dir_layer("bp:layer", tmp_path / "layer", 0, 0)).diff_id
        opened.commit(METADATA)
    (cache / "committed").rename(cache / "committed-backup")
    with DirectoryCache(cache) as opened:
        assert opened.metadata() == METADATA
        with opened.open(diff_id):
            pass
