"""Which blob is which layer: a plain tar's diffID, and the blobs that inflate to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...oci.descriptor import Descriptor
from ...oci.digest import Digest
from ...oci.errors import InvalidContent

if TYPE_CHECKING:  # who packs a layer need not have a database
    import sqlite3

    from .database import IndexDatabase


@dataclass(frozen=True, slots=True)
class Layer:
    """A plain tar of `size` bytes, and a blob that inflates to it or is it."""

    diff_id: Digest
    size: int
    blob: Descriptor

    @property
    def seal(self) -> str:
        """What a row must carry: power loss may leave one that is half of another."""
        blob = self.blob
        facts = (self.diff_id, self.size, blob.digest, blob.media_type, blob.size)
        return Digest.of(" ".join(map(str, facts)).encode()).encoded


class Layers:
    """What this store saw for itself about layers. Thread-safe.

    Only who compressed a layer, or inflated and hashed it, may add it: an image's own
    word would let one image choose the layers of another.
    """

    def __init__(self, database: IndexDatabase) -> None:
        self._database = database

    def add(self, layers: Iterable[Layer]) -> None:
        """Note what these blobs were seen to inflate to, all at once.

        Raises:
            OSError: the disk is full, or another process blocked the database for too long.
        """
        rows = [
            (str(e.diff_id), e.size, str(e.blob.digest), e.blob.media_type, e.blob.size, e.seal)
            for e in layers
        ]
        if not rows:
            return
        self._database.write(
            lambda connection: connection.executemany(
                "INSERT OR REPLACE INTO layers"
                " (diff_id, plain_size, digest, media_type, size, seal) VALUES (?, ?, ?, ?, ?, ?)",
                rows,
            )
        )

    def broken(self) -> int:
        """Return how many rows nobody believes, since they are not what was written.

        Raises:
            OSError: another process blocked the database for too long.
        """
        return self._database.read(_broken)

    def find(self, diff_ids: Iterable[Digest]) -> dict[Digest, tuple[Layer, ...]]:
        """Return the blobs that inflate to each of these, whether or not the pool still has them.

        Raises:
            OSError: another process blocked the database for too long.
        """
        wanted = list(diff_ids)
        query = (
            "SELECT plain_size, media_type, digest, size, seal FROM layers"
            " WHERE diff_id = ? ORDER BY digest"
        )

        def sealed(diff_id: Digest, connection: sqlite3.Connection) -> Iterator[Layer]:
            for size, media_type, digest, bytes_, seal in connection.execute(
                query, (str(diff_id),)
            ):
                blob = Descriptor(str(media_type), Digest.parse(str(digest)), int(bytes_))
                if (layer := Layer(diff_id, int(size), blob)).seal == seal:
                    yield layer

        return self._database.read(
            lambda connection: {d: tuple(sealed(d, connection)) for d in wanted}
        )

    def knows_size(self, plain_size: int) -> bool:
        """Tell whether any blob inflates to a plain tar of so many bytes.

        Raises:
            OSError: another process blocked the database for too long.
        """
        query = "SELECT 1 FROM layers WHERE plain_size = ? LIMIT 1"
        return self._database.read(
            lambda connection: connection.execute(query, (plain_size,)).fetchone() is not None
        )

    def known(self, digests: Iterable[Digest]) -> frozenset[Digest]:
        """Return those of these blobs of which is known what they inflate to.

        Raises:
            OSError: another process blocked the database for too long.
        """
        wanted = list(digests)
        query = "SELECT 1 FROM layers WHERE digest = ? LIMIT 1"
        return self._database.read(
            lambda connection: frozenset(
                digest for digest in wanted if connection.execute(query, (str(digest),)).fetchone()
            )
        )


def _broken(connection: sqlite3.Connection) -> int:
    count = 0
    query = "SELECT diff_id, plain_size, digest, media_type, size, seal FROM layers"
    for diff_id, plain_size, digest, media_type, size, seal in connection.execute(query):
        try:
            blob = Descriptor(str(media_type), Digest.parse(str(digest)), size)
            count += Layer(Digest.parse(str(diff_id)), plain_size, blob).seal != seal
        except InvalidContent:
            count += 1
    return count
