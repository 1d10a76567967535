"""Layers that are compressed while they come."""

import gzip
import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ocistow.oci.digest import Digest
from ocistow.publish.compression import PART
from ocistow.publish.packing import ROOM, Packer, pack
from ocistow.store.blobs import BlobStore
from ocistow.testing.disk import FailingDisk


class Random:
    """A stream of random bytes that knows how many were read."""

    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, size: int, /) -> bytes:
        size = min(size, self.left)
        self.left -= size
        return os.urandom(size)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("workers", [1, 3])
def test_layers_are_the_same_as_when_they_are_compressed_alone(
    tmp_path: Path, workers: int
) -> None:
    sizes = [0, 1, PART - 1, PART, 3 * PART + 5, (ROOM + 3) * PART]
    plain = [os.urandom(size // 2) + bytes(size - size // 2) for size in sizes]
    with BlobStore(tmp_path) as pool, ThreadPoolExecutor(workers) as executor:
        packer = Packer(executor)
        ingests = [pool.ingest() for _ in plain]
        for content, ingest in zip(plain, ingests, strict=True):
            packed = packer.pack(io.BytesIO(content), ingest, "sha256")
            with pool.ingest() as alone:
                assert pack(io.BytesIO(content), alone, "sha256").layer == packed.layer
            assert packed.layer.diff_id == Digest.of(content)
            digest = packed.ingest.commit(packed.layer.blob.digest)
            with open(pool.open(digest), "rb") as file:
                assert gzip.decompress(file.read()) == content
        for ingest in ingests:
            ingest.close()


def test_a_full_disk_ends_the_reading(tmp_path: Path) -> None:
    stream = Random(200 * PART)
    with (
        BlobStore(tmp_path, FailingDisk(1, only="write")) as pool,
        ThreadPoolExecutor(1) as executor,
        pool.ingest() as ingest,
        pytest.raises(OSError, match="No space left"),
    ):
        Packer(executor).pack(stream, ingest, "sha256")
    assert stream.left > (200 - 3 * ROOM) * PART
