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
FILES, PIECES = 4, 32  # 128 MiB


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.create(tmp_path_factory.mktemp("verify") / "store") as store:
        store.record_checksums()
        for number in range(FILES):
            store.blobs.add([bytes([number]), *[PIECE] * PIECES])
        store.blobs.sync()
        yield store


def files(store: Store) -> list[Path]:
    return sorted((store.path / "blobs" / "sha256").iterdir())


def forget(store: Store) -> None:
    """Drop what memory has of the files."""
    for path in files(store):
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


@pytest.mark.benchmark(group="verify 128 MiB")
@pytest.mark.parametrize("cached", [True, False], ids=["cached", "disk"])
@pytest.mark.parametrize("full", [False, True], ids=["blake3", "own-digest"])
def test_verify(benchmark: BenchmarkFixture, store: Store, full: bool, cached: bool) -> None:
    def verify() -> int:
        verifier = Verifier(store, Choice(full=full, cached=cached, anew=True))
        assert list(verifier.run()) == []
        return verifier.tally.blobs

    assert benchmark(verify) == FILES


@pytest.mark.benchmark(group="verify 128 MiB")
@pytest.mark.parametrize("cached", [True, False], ids=["cached", "disk"])
@pytest.mark.parametrize("program", ["sha256sum", "blake3-mmap"])
def test_others(benchmark: BenchmarkFixture, store: Store, program: str, cached: bool) -> None:
    def read() -> None:
        if not cached:
            forget(store)
        if program == "sha256sum":
            command = ["sha256sum", *map(str, files(store))]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            return
        for path in files(store):
            blake3(max_threads=blake3.AUTO).update_mmap(path).digest()

    benchmark(read)
