"""How fast is a blob read, large and small, next to `pread` of the same file?"""

import os
from collections.abc import Callable, Generator, Mapping
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from ocistow.oci.descriptor import Descriptor
from ocistow.oci.reference import Reference
from ocistow.store.layout import Layout
from ocistow.store.reading import READ_SIZE
from ocistow.store.store import Store
from ocistow.testing.disk import QuickDisk
from ocistow.testing.minimal import minimal_image

LARGE = 16 << 20


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Generator[Store]:
    with Store.create(tmp_path_factory.mktemp("reading") / "store", QuickDisk()) as store:
        yield store


@pytest.fixture(scope="module")
def image(store: Store) -> tuple[Layout, Descriptor]:
    made = minimal_image("read me", [f"layer {number}" for number in range(20)])
    made.add_to(store.blobs)
    return store.put(Reference.parse("bench.example/app"), made.root), made.root


def drained(file: int) -> int:
    """Read an open file to its end, close it and return how much it was."""
    size = 0
    try:
        while data := os.pread(file, READ_SIZE, size):
            size += len(data)
    finally:
        os.close(file)
    return size


@pytest.mark.benchmark(group="open, read 16 MiB, close")
@pytest.mark.parametrize("way", ["ocistow", "pread"])
def test_large(benchmark: BenchmarkFixture, store: Store, way: str) -> None:
    digest = store.blobs.add([bytes(READ_SIZE)] * (LARGE // READ_SIZE))
    path = store.blobs.path_of(digest)
    ways: Mapping[str, Callable[[], int]] = {
        "ocistow": lambda: drained(store.blobs.open(digest)),
        "pread": lambda: drained(os.open(path, os.O_RDONLY)),
    }
    assert benchmark(ways[way]) == LARGE


@pytest.mark.benchmark(group="read a manifest, verified")
@pytest.mark.parametrize("way", ["ocistow", "pread"])
def test_manifest(
    benchmark: BenchmarkFixture, store: Store, image: tuple[Layout, Descriptor], way: str
) -> None:
    layout, root = image
    path = Path(store.layouts / layout.name, "blobs", "sha256", root.digest.encoded)
    ways: Mapping[str, Callable[[], int]] = {
        "ocistow": lambda: len(layout.read(root)),
        "pread": lambda: len(path.read_bytes()),
    }
    assert benchmark(ways[way]) == root.size


@pytest.mark.benchmark(group="stat 22 blobs of a layout")
@pytest.mark.parametrize("way", ["ocistow", "os.scandir"])
def test_linked(
    benchmark: BenchmarkFixture, store: Store, image: tuple[Layout, Descriptor], way: str
) -> None:
    layout, _ = image
    directory = store.layouts / layout.name / "blobs" / "sha256"
    ways: Mapping[str, Callable[[], int]] = {
        "ocistow": lambda: sum(1 for _ in layout.linked()),
        "os.scandir": lambda: len([entry.stat() for entry in os.scandir(directory)]),
    }
    assert benchmark(ways[way]) == 22
