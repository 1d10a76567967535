"""How fast is a file hashed that was not written in order, next to `hashlib` and BLAKE3?"""

import hashlib
import os
from collections.abc import Callable, Generator, Mapping
from pathlib import Path

import pytest
from blake3 import blake3
from pytest_benchmark.fixture import BenchmarkFixture

from ocistow.store.blobs import BlobStore

CONTENT = os.urandom(16 << 20)


@pytest.fixture
def ways(tmp_path: Path) -> Generator[Mapping[str, Callable[[], str]]]:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)

    def by_hashlib() -> str:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    with BlobStore(tmp_path) as blobs, blobs.ingest() as ingest:
        ingest.write(CONTENT)

        def ours() -> str:
            ingest.write_at(0, CONTENT[:1])  # what was hashed no longer counts
            return ingest.digest().encoded

        yield {
            "ocistow": ours,
            "hashlib": by_hashlib,
            "blake3": lambda: blake3(path.read_bytes()).hexdigest(),
        }


@pytest.mark.benchmark(group="hash 16 MiB")
@pytest.mark.parametrize("way", ["ocistow", "hashlib", "blake3"])
def test_hash(benchmark: BenchmarkFixture, ways: Mapping[str, Callable[[], str]], way: str) -> None:
    benchmark(ways[way])
