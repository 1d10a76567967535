"""Whatever becomes of the files of the database, nothing wrong is believed, and work goes on."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ocistow.oci.descriptor import OCI_LAYER_GZIP, Descriptor
from ocistow.oci.digest import Digest
from ocistow.store.index.database import IndexDatabase
from ocistow.store.index.layers import Layer, Layers
from ocistow.store.index.locations import Locations
from ocistow.store.index.uploads import Uploads

Damage = Callable[[Path], None]


def layer(number: int) -> Layer:
    packed = Descriptor(OCI_LAYER_GZIP, Digest.of(f"packed {number}".encode()), 7)
    return Layer(Digest.of(f"plain {number}".encode()), 5 + number, packed)


TRUTH = {layer(number).diff_id: layer(number) for number in range(200)}
NEW = layer(1000)


def fill(path: Path, numbers: range) -> None:
    Layers(IndexDatabase(path)).add([layer(number) for number in numbers])


def beside(path: Path, end: str) -> Path:
    return path.with_name(path.name + end)


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def absent(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(b"no database at all " * 5000)


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def directory_for_log(path: Path) -> None:
    beside(path, "-wal").mkdir()


def directory_for_shared_memory(path: Path) -> None:
    beside(path, "-shm").mkdir()


def garbage_in_shared_memory(path: Path) -> None:
    beside(path, "-shm").write_bytes(b"\xa5" * 32768)


def garbage_in_log(path: Path) -> None:
    beside(path, "-wal").write_bytes(b"\xa5" * 32768)


def log_of_another(path: Path) -> None:
    other = path.with_name("other.sqlite")
    fill(other, range(500, 900))
    with closing(sqlite3.connect(other, isolation_level=None)) as connection:
        connection.execute("DELETE FROM layers WHERE plain_size % 3 = 0")
        shutil.copyfile(beside(other, "-wal"), beside(path, "-wal"))


def older_below_its_newer_log(path: Path) -> None:
    older = path.read_bytes()
    fill(path, range(150, 200))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM layers WHERE plain_size % 2 = 0")
        log = beside(path, "-wal").read_bytes()
        assert log
    path.write_bytes(older)
    beside(path, "-wal").write_bytes(log)


def of_the_future(path: Path) -> None:
    execute(path, "PRAGMA user_version = 99", "CREATE TABLE wonders (w)", "DROP TABLE layers")


def of_a_future_sqlite(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[18:20] = b"\x09\x09"
    path.write_bytes(content)


def without_a_column(path: Path) -> None:
    execute(path, "ALTER TABLE layers RENAME COLUMN plain_size TO size_of_plain")


def without_a_table(path: Path) -> None:
    execute(path, "DROP TABLE layers", "DROP TABLE uploads", "DROP TABLE locations")


def words_for_numbers(path: Path) -> None:
    execute(path, "UPDATE layers SET size = 'many'", "UPDATE layers SET seal = x'ff'")


def numbers_for_words(path: Path) -> None:
    execute(path, "UPDATE layers SET digest = plain_size, media_type = x'fe00'")


def exchanged(path: Path) -> None:
    """Rows whose parts are all right, but those of others."""
    execute(
        path,
        "CREATE TABLE copies AS SELECT * FROM layers ORDER BY digest",
        "UPDATE layers SET digest = (SELECT digest FROM copies WHERE copies.plain_size ="
        " 5 + (layers.plain_size - 4) % 100)",
    )


DAMAGES = [
    absent,
    empty,
    garbage,
    half,
    directory,
    directory_for_log,
    directory_for_shared_memory,
    garbage_in_shared_memory,
    garbage_in_log,
    log_of_another,
    older_below_its_newer_log,
    of_the_future,
    of_a_future_sqlite,
    without_a_column,
    without_a_table,
    words_for_numbers,
    numbers_for_words,
    exchanged,
]
HARMLESS = {garbage_in_shared_memory, garbage_in_log, older_below_its_newer_log}


def believed(layers: Layers) -> set[Layer]:
    found = layers.find([*TRUTH, NEW.diff_id])
    return {layer for known in found.values() for layer in known}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_known_stays_true(damage: Damage, tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    fill(path, range(150))
    damage(path)
    database = IndexDatabase(path)
    layers = Layers(database)
    known = believed(layers)
    assert known <= set(TRUTH.values())
    layers.add([NEW])
    assert NEW in believed(layers)
    assert layers.knows_size(NEW.size)
    Locations(database).add("e.x", "app", {NEW.diff_id: [NEW.blob.digest]})
    found = Locations(database).find("e.x", "app", [NEW.blob.digest])
    assert found.here == {NEW.blob.digest: NEW.diff_id}
    Uploads(database).note("e.x", "app", NEW.blob.digest, "http://e.x")
    if damage in HARMLESS:
        assert len(known) >= 75


@pytest.mark.parametrize("end", ["", "-wal", "-shm"])
def test_a_directory_that_holds_something_stays(end: str, tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    fill(path, range(10))
    beside(path, end).unlink(missing_ok=True)
    (beside(path, end) / "precious").mkdir(parents=True)
    with pytest.raises(OSError, match=r"index\.sqlite"):
        fill(path, range(10))
    assert (beside(path, end) / "precious").is_dir()
