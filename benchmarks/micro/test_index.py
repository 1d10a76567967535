"""What does a question to index.sqlite cost, next to the same query without checks?"""

import sqlite3
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from itertools import count

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from ocistow.oci.descriptor import OCI_LAYER_GZIP, Descriptor
from ocistow.oci.digest import Digest
from ocistow.store.index.layers import Layer
from ocistow.store.store import Store
from ocistow.testing.disk import QuickDisk

KNOWN = 20_000  # layers in the database
ASKED = 20  # as many as an image has
REGISTRY, REPOSITORY = "bench.example", "app"


def layer(number: int) -> Layer:
    blob = Descriptor(OCI_LAYER_GZIP, Digest.of(b"blob %d" % number), number)
    return Layer(Digest.of(b"tar %d" % number), number, blob)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Generator[Store]:
    with Store.create(tmp_path_factory.mktemp("index") / "store", QuickDisk()) as store:
        layers = [layer(number) for number in range(KNOWN)]
        store.layers.add(layers)
        manifests = {
            Digest.of(b"manifest %d" % number): [each.blob.digest for each in layers[number::1000]]
            for number in range(1000)
        }
        store.locations.add(REGISTRY, REPOSITORY, manifests)
        yield store


@pytest.fixture(scope="module")
def connection(store: Store) -> Generator[sqlite3.Connection]:
    with closing(sqlite3.connect(store.path / "index.sqlite")) as connection:
        connection.execute("PRAGMA synchronous = OFF")  # as the store's own
        yield connection


@pytest.mark.benchmark(group=f"find {ASKED} layers")
@pytest.mark.parametrize("way", ["ocistow", "sqlite"])
def test_find(
    benchmark: BenchmarkFixture, store: Store, connection: sqlite3.Connection, way: str
) -> None:
    asked = [layer(number * 7).diff_id for number in range(ASKED)]
    query = "SELECT plain_size, media_type, digest, size, seal FROM layers WHERE diff_id = ?"
    ways: Mapping[str, Callable[[], int]] = {
        "ocistow": lambda: len(store.layers.find(asked)),
        "sqlite": lambda: sum(
            len(connection.execute(query, (str(digest),)).fetchall()) for digest in asked
        ),
    }
    assert benchmark(ways[way]) == ASKED


@pytest.mark.benchmark(group=f"find where {ASKED} blobs are")
@pytest.mark.parametrize("way", ["ocistow", "sqlite"])
def test_locate(
    benchmark: BenchmarkFixture, store: Store, connection: sqlite3.Connection, way: str
) -> None:
    asked = [layer(number * 7).blob.digest for number in range(ASKED)]
    query = (
        "SELECT manifest, seen FROM locations WHERE registry = ? AND digest = ? AND repository = ?"
    )
    ways: Mapping[str, Callable[[], int]] = {
        "ocistow": lambda: len(store.locations.find(REGISTRY, REPOSITORY, asked).here),
        "sqlite": lambda: sum(
            len(connection.execute(query, (REGISTRY, str(digest), REPOSITORY)).fetchall())
            for digest in asked
        ),
    }
    assert benchmark(ways[way]) == ASKED


@pytest.mark.benchmark(group=f"note {ASKED} layers")
@pytest.mark.parametrize("way", ["ocistow", "sqlite"])
def test_note(
    benchmark: BenchmarkFixture, store: Store, connection: sqlite3.Connection, way: str
) -> None:
    numbers = count(KNOWN if way == "ocistow" else 2 * KNOWN << 10)

    def rows() -> list[Layer]:
        return [layer(next(numbers)) for _ in range(ASKED)]

    def by_sqlite() -> None:
        with connection:
            connection.executemany(
                "INSERT INTO layers (diff_id, plain_size, digest, media_type, size, seal)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (str(e.diff_id), e.size, str(e.blob.digest), e.blob.media_type, e.blob.size, "")
                    for e in rows()
                ],
            )

    benchmark((lambda: store.layers.add(rows())) if way == "ocistow" else by_sqlite)
