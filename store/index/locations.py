"""Where blobs were seen: in which repositories of a registry, and mentioned by which manifest."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ...oci.digest import Digest
from .database import IndexDatabase

FRESH = 24 * 3600.0  # seconds for which what is known is not written again
SOURCES = 3  # repositories named for one blob; a base layer may lie in thousands


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of some blobs; any of it may be out of date.

    Attributes:
        here: the manifest that mentions a blob in the repository asked about.
        elsewhere: other repositories that had a blob, the last seen first.
    """

    here: Mapping[Digest, Digest]
    elsewhere: Mapping[Digest, tuple[str, ...]]


class Locations:
    """What this store knows of registries; it may be out of date. Thread-safe."""

    def __init__(self, database: IndexDatabase) -> None:
        self._database = database

    def add(
        self, registry: str, repository: str, manifests: Mapping[Digest, Iterable[Digest]]
    ) -> None:
        """Note that a repository has these manifests now, each with what it mentions.

        Raises:
            OSError: the disk is full, or another process blocked the database for too long.
        """
        now = time.time()
        rows = [
            (registry, str(digest), repository, str(manifest), now)
            for manifest, mentioned in manifests.items()
            for digest in (manifest, *mentioned)
        ]

        def insert(connection: sqlite3.Connection) -> None:
            known = (
                "SELECT 1 FROM locations WHERE registry = ? AND digest = ? AND repository = ?"
                " AND manifest = ? AND seen BETWEEN ? AND ?"
            )
            connection.executemany(
                "INSERT OR REPLACE INTO locations (registry, digest, repository, manifest, seen)"
                " VALUES (?, ?, ?, ?, ?)",
                [
                    row
                    for row in rows
                    if connection.execute(known, (*row[:4], now - FRESH, now)).fetchone() is None
                ],
            )

        self._database.write(insert)

    def find(self, registry: str, repository: str, digests: Iterable[Digest]) -> Found:
        """Return where blobs were seen: in a repository, and in `SOURCES` others."""
        wanted = list(digests)

        def read(connection: sqlite3.Connection) -> Found:
            return Found(
                dict(_here(connection, registry, repository, wanted)),
                dict(_elsewhere(connection, registry, repository, wanted)),
            )

        return self._database.read(read)

    def forget(self, registry: str, repository: str, digests: Iterable[Digest]) -> None:
        """Note that a repository does not have some blobs, or does not give them away."""
        rows = [(registry, repository, str(digest)) for digest in digests]
        self._database.write(
            lambda connection: connection.executemany(
                "DELETE FROM locations WHERE registry = ? AND repository = ? AND digest = ?", rows
            )
        )


def _here(
    connection: sqlite3.Connection, registry: str, repository: str, digests: Iterable[Digest]
) -> Iterator[tuple[Digest, Digest]]:
    query = "SELECT manifest FROM locations WHERE registry = ? AND digest = ? AND repository = ?"
    for digest in digests:
        row = connection.execute(query, (registry, str(digest), repository)).fetchone()
        if row is not None:
            yield digest, Digest.parse(str(row[0]))


def _elsewhere(
    connection: sqlite3.Connection, registry: str, repository: str, digests: Iterable[Digest]
) -> Iterator[tuple[Digest, tuple[str, ...]]]:
    query = (
        "SELECT repository FROM locations WHERE registry = ? AND digest = ? AND repository != ?"
        " ORDER BY seen DESC LIMIT ?"
    )
    for digest in digests:
        rows = connection.execute(query, (registry, str(digest), repository, SOURCES)).fetchall()
        if rows:
            yield digest, tuple(str(name) for (name,) in rows)
