"""How fast are blobs read again, next to `sha256sum` and to BLAKE3 of the same mapped file?

From memory ("cached"), and from the disk, whose page cache is dropped before each file.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3
from pytest_benchmark.fixture import BenchmarkFixture

from ocistow.store.store import Store
from ocistow.store.verification.verifier import Choice, Verifier

PIECE = os.urandom(1 << 20)
FILES, PIECES = 4, 16  # 64 MiB


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.create(tmp_path_factory.mktemp("verify") / "store") as store:
        store.record_checksums()
        for number in range(FILES):
            store.blobs.add([bytes([number]), *[PIECE] * PIECES])
        store.blobs.sync()
        yield store


def files(store: Store, cached: bool) -> list[Path]:
    """Return the blobs; unless they may be cached, memory has nothing of them."""
    found = sorted((store.path / "blobs" / "sha256").iterdir())
    if not cached:
        for path in found:
            file = os.open(path, os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)
    return found


@pytest.mark.parametrize("cached", [True, False], ids=["memory", "disk"])
@pytest.mark.parametrize("way", ["ocistow", "mapped"])
def test_by_blake3(benchmark: BenchmarkFixture, store: Store, way: str, cached: bool) -> None:
    benchmark.group = group("BLAKE3", cached)

    def read_mapped() -> None:
        for path in files(store, cached):
            blake3(max_threads=blake3.AUTO).update_mmap(path).digest()

    benchmark((lambda: verify(store, False, cached)) if way == "ocistow" else read_mapped)


@pytest.mark.parametrize("cached", [True, False], ids=["memory", "disk"])
@pytest.mark.parametrize("way", ["ocistow", "sha256sum"])
def test_by_own_digest(benchmark: BenchmarkFixture, store: Store, way: str, cached: bool) -> None:
    benchmark.group = group("SHA-256", cached)

    def run() -> None:
        command = ["sha256sum", *map(str, files(store, cached))]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    benchmark((lambda: verify(store, True, cached)) if way == "ocistow" else run)


def group(name: str, cached: bool) -> str:
    return f"verify {FILES * PIECES} MiB {'in memory' if cached else 'on disk'} by {name}"


def verify(store: Store, full: bool, cached: bool) -> None:
    verifier = Verifier(store, Choice(full=full, cached=cached, anew=True))
    assert list(verifier.run()) == []
    assert verifier.tally.blobs == FILES
