"""What stays of a database, damaged or not, and what does not."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ocistow.oci.descriptor import OCI_LAYER_GZIP, Descriptor
from ocistow.oci.digest import Digest
from ocistow.store.index.layers import Layer
from ocistow.store.reindex import Rows, reindex
from ocistow.store.store import Store
from ocistow.testing.disk import QuickDisk

COUNT = 400
PAGE, LEAF = 4096, 10


def content(number: int) -> bytes:
    return b"packed %d" % number


def layer(number: int) -> Layer:
    packed = content(number)
    blob = Descriptor(OCI_LAYER_GZIP, Digest.of(packed), len(packed))
    return Layer(Digest.of(b"plain %d" % number), number, blob)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "store", QuickDisk()) as store:
        for number in range(COUNT):
            store.blobs.add([content(number)])
        store.layers.add(map(layer, range(COUNT)))
        yield store


def database(store: Store) -> sqlite3.Connection:
    return sqlite3.connect(store.path / "index.sqlite", isolation_level=None)


def root_page(store: Store, name: str) -> int:
    with closing(database(store)) as connection:
        query = "SELECT rootpage FROM sqlite_master WHERE name = ?"
        return int(connection.execute(query, (name,)).fetchone()[0]) - 1


def leaf_pages(raw: bytes, number: int) -> list[int]:
    """Return the pages with the last rows, in their order. Source: sqlite.org/fileformat2.html."""
    page = raw[number * PAGE : (number + 1) * PAGE]
    if page[0] == LEAF:
        return [number]
    count = int.from_bytes(page[3:5], "big")
    cells = [int.from_bytes(page[12 + 2 * n : 14 + 2 * n], "big") for n in range(count)]
    below = [page[cell : cell + 4] for cell in cells] + [page[8:12]]
    return [leaf for child in below for leaf in leaf_pages(raw, int.from_bytes(child, "big") - 1)]


def known(store: Store) -> set[Layer]:
    found = store.layers.find(layer(number).diff_id for number in range(COUNT))
    return {layer for layers in found.values() for layer in layers}


def test_what_is_true_stays(store: Store) -> None:
    a, b = layer(0).blob.digest, layer(1).blob.digest
    store.locations.add("e.x", "app", {a: [b]})
    store.uploads.note("e.x", "app", b, "https://e.x/upload")
    for _ in range(2):
        done = reindex(store.index, store.blobs)
        assert done.damage == ""
        assert done.tables["layers"] == Rows(COUNT, 0)
        assert done.tables["locations"] == Rows(2, 0)
        assert done.tables["uploads"] == Rows(1, 0)
    assert known(store) == set(map(layer, range(COUNT)))


def test_a_database_that_is_not_there_is_made(tmp_path: Path) -> None:
    with Store.create(tmp_path / "store", QuickDisk()) as store:
        done = reindex(store.index, store.blobs)
    assert {rows.kept for rows in done.tables.values()} == {0}


@pytest.mark.parametrize(
    "change",
    [
        "plain_size = plain_size + 1000",
        "media_type = NULL",
        "digest = 'sha256:' || hex(randomblob(32))",
        "size = 'many'",
        "seal = x'ff'",
        "diff_id = x'fffe' || diff_id",
    ],
)
def test_what_is_false_goes(store: Store, change: str) -> None:
    with closing(database(store)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        where = "plain_size % 4 = 0"
        connection.execute(f"UPDATE OR IGNORE layers SET {change} WHERE {where}")
        changed = connection.execute("SELECT changes()").fetchone()[0]
    done = reindex(store.index, store.blobs)
    assert done.tables["layers"] == Rows(COUNT - changed, changed)
    assert known(store) <= set(map(layer, range(COUNT)))


def test_what_is_about_blobs_that_are_gone_goes(store: Store) -> None:
    for number in range(10):
        store.blobs.delete(layer(number).blob.digest)
    assert reindex(store.index, store.blobs).tables["layers"] == Rows(COUNT - 10, 10)


def test_what_is_before_and_behind_damage_is_rescued(store: Store) -> None:
    raw = (store.path / "index.sqlite").read_bytes()
    pages = leaf_pages(raw, root_page(store, "layers"))
    assert len(pages) > 10
    with (store.path / "index.sqlite").open("r+b") as file:
        file.seek(pages[len(pages) // 2] * PAGE)
        file.write(b"\xff" * PAGE)
    done = reindex(store.index, store.blobs)
    assert done.damage
    kept = done.tables["layers"].kept
    assert COUNT - 3 * COUNT // len(pages) < kept < COUNT
    assert len(known(store)) == kept
    assert reindex(store.index, store.blobs).damage == ""


def test_nothing_is_rescued_of_what_is_no_database(store: Store) -> None:
    (store.path / "index.sqlite").write_bytes(b"nothing " * 4096)
    done = reindex(store.index, store.blobs)
    assert done.damage == "file is not a database"
    assert done.tables["layers"] == Rows(0, 0)
    assert [path.name for path in store.path.iterdir() if path.name.startswith(".")] == []
    store.layers.add([layer(1)])
    assert known(store) == {layer(1)}
