"""Putting index.sqlite in order: what can be read of it stays, what became untrue goes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import InvalidContent, NotFound
from .blobs import BlobStore
from .index.checksums import Checksum
from .index.database import IndexDatabase
from .index.layers import Layer

_Row: TypeAlias = Sequence[str | int | float | None]
_Test: TypeAlias = Callable[[BlobStore, _Row], bool]


@dataclass(frozen=True, slots=True)
class Rows:
    """How many rows of one table stayed, and how many did not."""

    kept: int
    dropped: int


@dataclass(frozen=True, slots=True)
class Reindexed:
    """What became of the database.

    Attributes:
        damage: what was wrong with it; nothing if it was whole.
        tables: by their names.
    """

    damage: str
    tables: dict[str, Rows]


def reindex(database: IndexDatabase, pool: BlobStore) -> Reindexed:
    """Make a damaged database anew, and drop rows that are false or of blobs that are gone.

    Where registries have blobs stays: nothing here can tell that, nor does a blob have to be
    in the pool for it. Any number of processes may use the database; who writes to it waits.

    Raises:
        OSError: the disk is full, or another process blocked the database for too long.
    """
    if damage := database.damage():
        database.salvage()
    return Reindexed(damage, {table: _prune(database, pool, table) for table in _TESTS})


def _prune(database: IndexDatabase, pool: BlobStore, table: str) -> Rows:
    columns, test = _TESTS[table]
    # SQLite hands damaged text to a function as bytes only.
    values = [f"CASE typeof({c}) WHEN 'text' THEN CAST({c} AS BLOB) ELSE {c} END" for c in columns]

    def is_true(*row: bytes | int | float | None) -> bool:
        try:
            return test(pool, [v.decode() if isinstance(v, bytes) else v for v in row])
        except (InvalidContent, NotFound, ValueError, TypeError, OverflowError):
            return False

    def prune(connection: sqlite3.Connection) -> Rows:
        connection.create_function("is_true", len(columns), is_true)
        where = f"NOT is_true({', '.join(values)})"
        dropped = connection.execute(f"DELETE FROM {table} WHERE {where}").rowcount  # noqa: S608 - words of ours
        (kept,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 - likewise
        return Rows(int(kept), dropped)

    return database.write(prune)


def _is_layer(pool: BlobStore, row: _Row) -> bool:
    diff_id, plain_size, digest, media_type, size, seal = row
    blob = Descriptor(str(media_type), Digest.parse(str(digest)), int(size or 0))
    layer = Layer(Digest.parse(str(diff_id)), int(plain_size or 0), blob)
    return layer.seal == seal and pool.stat(blob.digest).st_size == size


def _is_checksum(pool: BlobStore, row: _Row) -> bool:
    digest, size, blake3, inode, changed, verified, seal = row
    found = Checksum(
        Digest.parse(str(digest)),
        int(size or 0),
        str(blake3),
        int(inode or 0),
        int(changed or 0),
        float(verified or 0),
    )
    return found.seal == seal and found.is_of(pool.stat(found.digest))


def _has_digests(_: BlobStore, row: _Row) -> bool:
    for text in row:
        Digest.parse(str(text))
    return True


_TESTS: dict[str, tuple[Sequence[str], _Test]] = {
    "layers": (("diff_id", "plain_size", "digest", "media_type", "size", "seal"), _is_layer),
    "checksums": (
        ("digest", "size", "blake3", "inode", "changed", "verified", "seal"),
        _is_checksum,
    ),
    "locations": (("digest", "manifest"), _has_digests),
    "uploads": (("digest",), _has_digests),
}
