from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocistow.lifecycle.caches.cache import Cached
from ocistow.lifecycle.caches.directory import DirectoryCache
from ocistow.lifecycle.files.labels import BuildpackLayers, CacheMetadata, LayerMetadata
from ocistow.lifecycle.layers.tarball import LayerTar
from ocistow.lifecycle.layers.trees import dir_layer
from ocistow.oci.digest import Digest
from ocistow.oci.errors import Busy, InvalidContent
from ocistow.oci.wording import message_of
from ocistow.store.disk import Disk
from ocistow.testing.descriptors import open_files
from ocistow.testing.disk import FailingDisk

METADATA = CacheMetadata(
    "sha256:" + "1" * 64,
    (BuildpackLayers("bp", "1.0", {"a": LayerMetadata("sha256:" + "2" * 64, {"k": 1})}),),
)


def layer(tmp_path: Path, content: bytes) -> LayerTar:
    directory = tmp_path / "layer"
    directory.mkdir(exist_ok=True)
    (directory / "file").write_bytes(content)
    return dir_layer("bp:layer", directory, 1000, 1000)


def tar_of(tar: LayerTar) -> bytes:
    stream = tar.open()
    try:
        return b"".join(iter(lambda: stream.read(1 << 20), b""))
    finally:
        stream.close()


def digest_of(tar: LayerTar) -> Digest:
    return Digest.of(tar_of(tar))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


@pytest.fixture
def cache(path: Path) -> Iterator[DirectoryCache]:
    with DirectoryCache(path) as cache:
        yield cache


def file_of(path: Path, diff_id: Digest) -> Path:
    return path / "committed" / f"{diff_id}.tar"


def test_a_layer_comes_back(cache: DirectoryCache, path: Path, tmp_path: Path) -> None:
    tar = layer(tmp_path, b"1" * 3_000_000)
    assert cache.add(tar) == Cached(digest_of(tar), reused=False)
    cache.commit(METADATA)
    assert file_of(path, digest_of(tar)).read_bytes() == tar_of(tar)
    with cache.open(digest_of(tar)) as stream:
        assert stream.read(4_000_000) == tar_of(tar)
    assert sorted(entry.name for entry in path.iterdir()) == ["committed"]


def test_the_metadata_is_what_go_writes(cache: DirectoryCache, path: Path) -> None:
    cache.commit(METADATA)
    raw = (path / "committed" / "io.buildpacks.lifecycle.cache.metadata").read_bytes()
    assert raw.endswith(b"}\n")
    assert json.loads(raw)["buildpacks"][0]["key"] == "bp"
    assert cache.metadata() == METADATA
    with DirectoryCache(path) as again:
        assert again.metadata() == METADATA


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b'{"sbom":1}', b" " * 5_000_000])
def test_metadata_that_cannot_be_understood_is_none(
    cache: DirectoryCache, path: Path, raw: bytes
) -> None:
    cache.commit(METADATA)
    (path / "committed" / "io.buildpacks.lifecycle.cache.metadata").write_bytes(raw)
    assert cache.metadata() == CacheMetadata()


def test_nothing_is_visible_before_the_commit(path: Path, tmp_path: Path) -> None:
    tar = layer(tmp_path, b"1")
    with DirectoryCache(path) as cache:
        cache.add(tar)
        with pytest.raises(InvalidContent), cache.open(digest_of(tar)):
            pass
    assert sorted(entry.name for entry in path.iterdir()) == ["committed"]
    assert not list((path / "committed").iterdir())


def test_an_unchanged_layer_is_linked(cache: DirectoryCache, path: Path, tmp_path: Path) -> None:
    tar = layer(tmp_path, b"1" * 3_000_000)
    diff_id = cache.add(tar).diff_id
    cache.commit(METADATA)
    inode = file_of(path, diff_id).stat().st_ino
    assert cache.add(tar, diff_id) == Cached(diff_id, reused=True)
    cache.commit(METADATA)
    assert file_of(path, diff_id).stat().st_ino == inode
    assert file_of(path, diff_id).stat().st_nlink == 1


@pytest.mark.parametrize("old", [b"1" * 2_999_999 + b"0", b"1" * 2_000_000, b"1" * 4_000_000, b""])
def test_a_layer_that_begins_alike_is_another(
    cache: DirectoryCache, path: Path, tmp_path: Path, old: bytes
) -> None:
    before = cache.add(layer(tmp_path, old)).diff_id
    cache.commit(METADATA)
    tar = layer(tmp_path, b"1" * 3_000_000)
    assert cache.add(tar, before) == Cached(digest_of(tar), reused=False)
    cache.commit(METADATA)
    assert file_of(path, digest_of(tar)).read_bytes() == tar_of(tar)
    assert not file_of(path, before).exists()


def test_a_damaged_layer_is_not_reused(cache: DirectoryCache, path: Path, tmp_path: Path) -> None:
    tar = layer(tmp_path, b"1" * 3_000_000)
    diff_id = cache.add(tar).diff_id
    cache.commit(METADATA)
    for damage in (b"0", b"x" * 5_000_000):
        file_of(path, diff_id).write_bytes(damage)
        words = f"expected layer contents to have SHA '{diff_id}'; found '{Digest.of(damage)}'"
        with pytest.raises(InvalidContent) as raised, cache.open(diff_id):
            pass
        assert str(raised.value) == words
        assert cache.add(tar, diff_id) == Cached(diff_id, reused=False, fault=words)
        cache.commit(METADATA)
        assert file_of(path, diff_id).read_bytes() == tar_of(tar)


def test_a_lost_layer_is_not_reused(cache: DirectoryCache, path: Path, tmp_path: Path) -> None:
    tar = layer(tmp_path, b"1")
    diff_id = cache.add(tar).diff_id
    cache.commit(METADATA)
    file_of(path, diff_id).unlink()
    words = f"failed to find cache layer with SHA '{diff_id}'"
    with pytest.raises(InvalidContent) as raised, cache.open(diff_id):
        pass
    assert str(raised.value) == words
    assert not cache.keep(diff_id)
    assert cache.add(tar, diff_id) == Cached(diff_id, reused=False, fault=words)


def test_a_link_is_no_layer(cache: DirectoryCache, path: Path, tmp_path: Path) -> None:
    tar = layer(tmp_path, b"1")
    secret = tmp_path / "secret"
    secret.write_bytes(tar_of(tar))
    diff_id = digest_of(tar)
    file_of(path, diff_id).symlink_to(secret)
    with pytest.raises(InvalidContent), cache.open(diff_id):
        pass
    assert not cache.keep(diff_id)


def test_a_layer_can_be_kept_unread(cache: DirectoryCache, path: Path, tmp_path: Path) -> None:
    diff_id = cache.add(layer(tmp_path, b"1")).diff_id
    cache.commit()
    assert cache.keep(diff_id)
    assert cache.keep(diff_id)
    cache.commit()
    assert file_of(path, diff_id).exists()
    cache.commit()
    assert not file_of(path, diff_id).exists()


def test_a_full_disk_is_told_with_the_cache(path: Path, tmp_path: Path) -> None:
    with DirectoryCache(path, FailingDisk(0, only="write")) as cache:
        with pytest.raises(OSError, match="No space left") as refused:
            cache.add(layer(tmp_path, b"content"))
        assert message_of(refused.value) == f"{path}: No space left on device"
    with DirectoryCache(path, FailingDisk(0, only="write")) as cache:
        with pytest.raises(OSError, match="No space left") as refused:
            cache.commit(CacheMetadata())
        assert message_of(refused.value) == f"{path}: No space left on device"


class Linkless(Disk):
    def link(self, source: int, name: str, directory: int, new: str) -> bool:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def test_where_links_fail_layers_are_copied(path: Path, tmp_path: Path) -> None:
    tar = layer(tmp_path, b"1" * 3_000_000)
    with DirectoryCache(path, Linkless()) as cache:
        diff_id = cache.add(tar).diff_id
        cache.commit()
        assert cache.add(tar, diff_id).reused
        assert cache.keep(diff_id)
        cache.commit()
        assert file_of(path, diff_id).read_bytes() == tar_of(tar)


def test_a_cache_whose_process_died_while_it_committed_is_whole(path: Path, tmp_path: Path) -> None:
    with DirectoryCache(path) as cache:
        diff_id = cache.add(layer(tmp_path, b"1")).diff_id
        cache.commit(METADATA)
    (path / "committed").rename(path / "committed-backup")
    (path / "staging").mkdir()
    with DirectoryCache(path) as cache:
        assert cache.metadata() == METADATA
        with cache.open(diff_id):
            pass


def test_what_others_left_goes_away(path: Path, tmp_path: Path) -> None:
    for name in ("staging", "committed-backup"):
        (path / name / "below").mkdir(parents=True)
        (path / name / "below" / "file").touch()
    (path / "committed").mkdir()
    with DirectoryCache(path) as cache:
        cache.add(layer(tmp_path, b"1"))
        cache.commit(METADATA)
    assert sorted(entry.name for entry in path.iterdir()) == ["committed"]


def test_one_process_at_a_time_writes(path: Path, tmp_path: Path) -> None:
    tar = layer(tmp_path, b"1")
    with DirectoryCache(path) as cache, DirectoryCache(path, timeout=0) as other:
        cache.add(tar)
        with pytest.raises(Busy):
            other.add(tar)
        cache.commit(METADATA)
        other.add(tar)


def test_a_reader_goes_on_while_another_commits(path: Path, tmp_path: Path) -> None:
    tar = layer(tmp_path, b"1" * 3_000_000)
    with DirectoryCache(path) as cache:
        cache.add(tar)
        cache.commit()
    with DirectoryCache(path) as reader, reader.open(digest_of(tar)) as stream:
        with DirectoryCache(path) as writer:
            writer.commit()
        assert stream.read(4_000_000) == tar_of(tar)


def test_no_directory_no_cache(tmp_path: Path) -> None:
    before = open_files()
    with pytest.raises(FileNotFoundError):
        DirectoryCache(tmp_path / "absent")
    (tmp_path / "committed").touch()
    with pytest.raises(NotADirectoryError):
        DirectoryCache(tmp_path)
    assert open_files() <= before
