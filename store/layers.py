"""Which blob is which layer: a plain tar's diffID, and the compressed blobs that inflate to it."""

from __future__ import annotations

from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from .index import IndexDatabase


class Layers:
    """What this store saw for itself about layers. Thread-safe.

    Only who compressed a layer, or inflated and hashed it, may add it: an image's own
    word would let one image choose the layers of another.
    """

    def __init__(self, database: IndexDatabase) -> None:
        self._database = database

    def add(self, diff_id: Digest, blob: Descriptor) -> None:
        """Note that a blob was seen to inflate to this.

        Raises:
            OSError: the disk is full, or another process blocked the database for too long.
        """
        row = str(diff_id), str(blob.digest), blob.media_type, blob.size
        self._database.write(
            lambda connection: connection.execute(
                "INSERT OR REPLACE INTO layers (diff_id, digest, media_type, size)"
                " VALUES (?, ?, ?, ?)",
                row,
            )
        )

    def find(self, diff_id: Digest) -> tuple[Descriptor, ...]:
        """Return the blobs that inflate to this, whether or not the pool still has them."""
        rows = self._database.write(
            lambda connection: connection.execute(
                "SELECT media_type, digest, size FROM layers WHERE diff_id = ? ORDER BY digest",
                (str(diff_id),),
            ).fetchall()
        )
        return tuple(
            Descriptor(str(media_type), Digest.parse(str(digest)), int(size))
            for media_type, digest, size in rows
        )
