"""Layers packed in one pass, and those that are there already."""

import gzip
import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocistow.lifecycle.layers.packer import LayerPacker, PackedLayer
from ocistow.lifecycle.layers.tarball import LayerTar
from ocistow.lifecycle.layers.trees import dir_layer
from ocistow.oci.descriptor import DOCKER_LAYER_GZIP, DOCKER_MANIFEST, OCI_LAYER_GZIP
from ocistow.oci.digest import Digest
from ocistow.oci.errors import InvalidContent
from ocistow.publish.compression import GZIP, Compression
from ocistow.publish.recognition import Recognition
from ocistow.store.blobs import BlobStore
from ocistow.store.index.layers import Layer
from ocistow.store.store import Store
from ocistow.testing.descriptors import open_files
from ocistow.testing.disk import FailingDisk

NONE, ZSTD = Compression.parse("none"), Compression.parse("zstd")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "store") as store:
        yield store


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    for number in range(3):
        (tree / f"{number}").mkdir(parents=True)
        (tree / f"{number}" / "file").write_bytes(os.urandom(700_000) + bytes(1 << 20))
    return tree


def layer(tree: Path, id: str = "layer") -> LayerTar:
    return dir_layer(id, tree, 1, 2)


def plain(tar: LayerTar) -> bytes:
    return tar.open().read(tar.size + 1)


def committed(blobs: BlobStore, packed: PackedLayer) -> bytes:
    assert packed.ingest is not None
    assert packed.blob is not None
    digest = packed.ingest.commit(packed.blob.digest)
    with open(blobs.open(digest), "rb") as file:
        content = file.read()
    assert len(content) == packed.blob.size
    return content


def note(store: Store, packed: PackedLayer) -> None:
    assert packed.blob is not None
    Recognition(store).note([Layer(packed.diff_id, packed.plain_size, packed.blob)])


@pytest.mark.parametrize("jobs", [0, 1, 3])
def test_layers_are_packed_side_by_side(store: Store, tree: Path, jobs: int) -> None:
    tars = [layer(tree), *(layer(tree / str(number)) for number in range(3))]
    with LayerPacker(store.blobs, GZIP, jobs=jobs) as packer:
        packed = [future.result() for future in [packer.pack(tar) for tar in tars]]
        for tar, one in zip(tars, packed, strict=True):
            assert gzip.decompress(committed(store.blobs, one)) == plain(tar)
            assert one.diff_id.encoded == hashlib.sha256(plain(tar)).hexdigest()
            assert one.plain_size == tar.size
            assert one.blob is not None
            assert one.blob.media_type == OCI_LAYER_GZIP
            assert not one.reused


def test_the_manifest_decides_what_a_layer_is_called(store: Store, tree: Path) -> None:
    with LayerPacker(store.blobs, GZIP, manifest=DOCKER_MANIFEST) as packer:
        blob = packer.pack(layer(tree)).result().blob
    assert blob is not None
    assert blob.media_type == DOCKER_LAYER_GZIP
    with pytest.raises(InvalidContent, match="cannot be in a Docker manifest"):
        LayerPacker(store.blobs, ZSTD, manifest=DOCKER_MANIFEST)


def test_what_the_previous_image_has_is_not_packed(store: Store, tree: Path) -> None:
    tar = layer(tree)
    expected = Digest.of(plain(tar))
    with LayerPacker(store.blobs, GZIP) as packer:
        assert packer.pack(tar, [expected]).result() == PackedLayer(expected, tar.size, reused=True)
        other = packer.pack(tar, [Digest.of(b"before")]).result()
        assert (other.diff_id, other.reused) == (expected, False)
        assert gzip.decompress(committed(store.blobs, other)) == plain(tar)


def test_what_the_store_has_is_not_packed(store: Store, tree: Path) -> None:
    tar = layer(tree)
    with LayerPacker(store.blobs, ZSTD) as packer:
        first = packer.pack(tar).result()
        committed(store.blobs, first)
        note(store, first)
    with LayerPacker(store.blobs, GZIP, known=Recognition(store)) as packer:
        again = packer.pack(tar).result()
        assert again == PackedLayer(first.diff_id, tar.size, first.blob, reused=True)
    docker = LayerPacker(store.blobs, GZIP, manifest=DOCKER_MANIFEST, known=Recognition(store))
    with docker as packer:  # which cannot have zstd
        assert packer.pack(tar).result().ingest is not None


def test_what_is_as_long_as_another_is_packed(store: Store, tree: Path) -> None:
    with LayerPacker(store.blobs, NONE) as packer:
        first = packer.pack(layer(tree)).result()
        committed(store.blobs, first)
        note(store, first)
    (tree / "0" / "file").write_bytes(os.urandom(700_000) + bytes(1 << 20))
    with LayerPacker(store.blobs, GZIP, known=Recognition(store)) as packer:
        second = packer.pack(layer(tree)).result()
        assert second.plain_size == first.plain_size
        assert gzip.decompress(committed(store.blobs, second)) == plain(layer(tree))


def test_a_file_that_became_shorter_fails_its_layer_alone(store: Store, tree: Path) -> None:
    with LayerPacker(store.blobs, GZIP) as packer:
        tar, other = layer(tree), layer(tree / "1")
        os.truncate(tree / "0" / "file", 5)
        with pytest.raises(InvalidContent, match=r"tree/0/file had 1748576 bytes and ends at 5"):
            packer.pack(tar).result()
        assert packer.pack(other).result().plain_size == other.size


def test_a_full_disk_fails_the_layer(tmp_path: Path, tree: Path) -> None:
    (tmp_path / "pool").mkdir()
    with (
        BlobStore(tmp_path / "pool", FailingDisk(1, only="write")) as blobs,
        LayerPacker(blobs, GZIP) as packer,
        pytest.raises(OSError, match="No space left"),
    ):
        packer.pack(layer(tree)).result()


def test_what_is_under_way_ends_with_the_block(store: Store, tree: Path) -> None:
    store.blobs.ingest().close()  # the pool keeps its directory open from then on
    threads = set(threading.enumerate())
    files = open_files()
    with LayerPacker(store.blobs, GZIP, jobs=1) as packer:
        futures = [packer.pack(layer(tree)) for _ in range(20)]
    assert all(future.done() for future in futures)
    assert any(future.cancelled() for future in futures)
    assert set(threading.enumerate()) <= threads
    assert open_files() <= files
    assert list(store.blobs) == []
