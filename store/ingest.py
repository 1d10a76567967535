"""One blob on its way into a pool."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from ..oci.digest import Digest
from ..oci.errors import DigestMismatch, NotFound
from .disk import Disk
from .hashing import Hashing
from .index.checksums import Checksum

if TYPE_CHECKING:
    from .blobs import BlobStore

_BESIDE = "blake3"  # what may be taken of each blob beside its digest, at a third of the cost


class Ingest:
    """One blob on its way in: a file without a name, so a crash leaves nothing behind.

    Not thread-safe. Bytes that arrive in order are hashed on the way; anything
    else makes `digest` read the file again. With `behind` another thread hashes, so that a
    writer who has other things to do need not wait for it.
    """

    def __init__(
        self, blobs: BlobStore, disk: Disk, algorithm: str, file: int, *, behind: bool = False
    ) -> None:
        self._disk = disk
        self._algorithm = algorithm
        self._behind = behind
        self._sealed = False
        self._is_lost = False
        self.blobs = blobs
        self._hashing = self._hash(algorithm)
        self.file = file
        self.size = 0

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`."""
        self.write_at(self.size, data)

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        """Write `data` at a byte offset, like pwrite(2).

        Raises:
            PermissionError: the blob is committed; its content never changes.
        """
        self._check_open()
        self._hashing.change(offset)
        in_order = not self._behind and offset == self._hashing.at == self.size
        try:
            self._disk.write(self.file, data, offset)
        except BaseException:
            self._hashing.restart()  # some of it may have been written
            self.size = os.fstat(self.file).st_size
            raise
        if data:
            self.size = max(self.size, offset + len(data))
        if in_order:
            self._hashing.take(data)
        elif self._behind:
            self._hashing.follow(self.file, self.size)

    def copy(self, source: int, offset: int, at: int, length: int) -> int:
        """Write up to `length` bytes of an open file at a byte offset; returns how many.

        They are hashed by reading.
        """
        self._check_open()
        self._hashing.change(at)
        count = self._disk.copy_range(source, offset, self.file, at, length)
        self.size = os.fstat(self.file).st_size
        return count

    def truncate(self, length: int) -> None:
        """Cut or extend the content to `length` bytes, like ftruncate(2)."""
        self._check_open()
        if length:
            self._hashing.change(length)
        else:
            self._hashing.restart()
        self._disk.truncate(self.file, length)
        self.size = length

    def reread(self) -> None:
        """Take it that others wrote to `file`, and do no more: its bytes are hashed in the end.

        Only once, since whoever waits for that waits a fifth less.
        """
        self._hashing.stop()
        self._hashing = Hashing([self._algorithm])
        self.size = os.fstat(self.file).st_size

    def clone(self, source: int) -> bool:
        """Share the bytes of an open file instead of writing them; False where impossible.

        They are still hashed by reading, since nobody vouches for the source.
        """
        self._check_open()
        if not self._disk.clone(source, self.file):
            return False
        self._hashing.restart()
        self.size = os.fstat(self.file).st_size
        return True

    def digest(self, algorithm: str | None = None) -> Digest:
        """Return the digest of the content so far; reads what was not written in order.

        Another algorithm than that of the ingest costs another reading.
        """
        algorithm = algorithm or self._algorithm
        if self._hashing.algorithms[0] != algorithm:
            self._hashing.stop()
            self._hashing = self._hash(algorithm)
        return Digest(algorithm, self._hashing.finish(self.file, self.size)[0])

    def sync(self) -> None:
        """Bring what was written to disk: `commit`, which does that, has less to do then.

        Raises:
            OSError: that failed, now or before. The system says so once, and has forgotten what
                is not on the disk: nothing but a new ingest is of use.
        """
        if self._is_lost:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        try:
            self._disk.sync(self.file)
        except OSError:
            self._is_lost = True
            raise

    def commit(self, expected: Digest | None = None) -> Digest:
        """Name the blob and return its digest; content already present is not an error.

        The bytes are on disk when this returns, the name is after `BlobStore.sync`.

        Raises:
            DigestMismatch: the bytes are not what `expected` announced.
            OSError: what they lie on failed, now or at an earlier `sync`.
        """
        actual = self.digest(expected.algorithm if expected else None)
        if expected is not None and actual != expected:
            raise DigestMismatch(expected, actual)
        self._sealed = True
        if actual not in self.blobs:
            self.sync()
        self.blobs.accept(self.file, actual, synced=True)
        self._note(actual)
        return actual

    def close(self) -> None:
        """Close the file; what was not committed is gone."""
        if self.file >= 0:
            self._hashing.stop()
            self._disk.close(self.file)
            self.file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._sealed:
            raise PermissionError(errno.EPERM, "a committed blob never changes")

    def _hash(self, algorithm: str) -> Hashing:
        beside = self.blobs.recorder is not None and algorithm != _BESIDE
        # A sync in the end has little to wait for: 0.1 s less for 256 MiB.
        seen = self._disk.begin_sync if self._behind else None
        return Hashing([algorithm, _BESIDE] if beside else [algorithm], seen)

    def _note(self, digest: Digest) -> None:
        if _BESIDE not in self._hashing.algorithms[1:]:
            return
        beside = self._hashing.finish(self.file, self.size)[1]
        status = os.fstat(self.file)
        with suppress(NotFound):  # somebody removed it just now
            if os.path.samestat(status, self.blobs.stat(digest)):  # else it was present before
                self.blobs.note(Checksum.of(digest, beside, status))
