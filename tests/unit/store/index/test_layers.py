import sqlite3
from pathlib import Path

import pytest

from ocistow.oci.descriptor import OCI_LAYER_GZIP, Descriptor
from ocistow.oci.digest import Digest
from ocistow.store.index.database import IndexDatabase
from ocistow.store.index.layers import Layer, Layers

PLAIN, OTHER = Digest.of(b"plain"), Digest.of(b"other")
ONE = Layer(PLAIN, 5, Descriptor(OCI_LAYER_GZIP, Digest.of(b"packed"), 7))
TWO = Layer(PLAIN, 5, Descriptor(OCI_LAYER_GZIP, Digest.of(b"packed better"), 6))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.sqlite"


def test_every_blob_of_a_layer_is_found(path: Path) -> None:
    layers = Layers(IndexDatabase(path))
    layers.add([ONE, TWO])
    layers.add([])
    found = layers.find([PLAIN, OTHER])
    assert set(found[PLAIN]) == {ONE, TWO}
    assert found[OTHER] == ()
    assert layers.knows_size(5)
    assert not layers.knows_size(6)


@pytest.mark.parametrize(
    "change",
    [
        f"diff_id = '{OTHER}'",
        "plain_size = 6",
        f"digest = '{TWO.blob.digest}'",
        "media_type = 'application/x'",
        "size = 8",
    ],
)
def test_a_row_that_is_half_of_another_is_ignored(path: Path, change: str) -> None:
    layers = Layers(IndexDatabase(path))
    layers.add([ONE])
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE layers SET {change}")
    connection.close()
    assert layers.find([PLAIN, OTHER]) == {PLAIN: (), OTHER: ()}
