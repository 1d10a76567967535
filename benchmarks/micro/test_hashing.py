"""How fast is a file hashed that was not written in order, next to `hashlib.file_digest`?"""

import hashlib
import os
from pathlib import Path

import blake3
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from ocistow.store.blobs import BlobStore

CONTENT = os.urandom(16 << 20)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


@pytest.mark.benchmark(group="hash 16 MiB")
def test_ingest_digest(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    with BlobStore(tmp_path) as blobs, blobs.ingest() as ingest:
        ingest.write(CONTENT)

        def digest() -> str:
            ingest.write_at(0, CONTENT[:1])  # what was hashed no longer counts
            return ingest.digest().encoded

        benchmark(digest)


@pytest.mark.benchmark(group="hash 16 MiB")
def test_file_digest(benchmark: BenchmarkFixture, file: Path) -> None:
    def digest() -> str:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    benchmark(digest)


@pytest.mark.benchmark(group="hash 16 MiB")
def test_blake3(benchmark: BenchmarkFixture, file: Path) -> None:
    benchmark(lambda: blake3.blake3(file.read_bytes()).hexdigest())
