"""What lets content become visible: blocking calls, made in worker threads with plain values."""

from __future__ import annotations

import os
from pathlib import PurePosixPath

from ..oci.digest import Digest, new_hash
from ..oci.errors import DigestMismatch
from ..oci.manifest import Index
from ..store.blobs import READ_SIZE, Ingest
from ..store.layout import Layout
from ..store.store import Store


class Gate:
    """The ways into the pool and into a layout's index. Paths are below the layout root."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def blob(self, ingest: Ingest, digest: Digest, path: bytes) -> None:
        """Let a staged file become the blob at `path`.

        Raises:
            DigestMismatch: its content has another digest; nothing changed.
        """
        ingest.commit(digest)
        self._store.files.link_blob(digest, path)

    def adopt(self, source: bytes, known: Digest | None, digest: Digest, path: bytes) -> None:
        """Let an ordinary file become the blob at `path`, and end its old name.

        `known` is its digest if somebody hashed it while it was written.

        Raises:
            DigestMismatch: its content has another digest; nothing changed.
        """
        file = self._store.files.open(source, os.O_RDONLY)
        try:
            actual = known or _hash(file, digest.algorithm)
            if actual != digest:
                raise DigestMismatch(digest, actual)
            if digest in self._store.blobs:
                self._store.files.link_blob(digest, path)
            else:
                self._store.blobs.adopt(file, digest)
                self._store.files.link_blob(digest, path)
        finally:
            os.close(file)
        self._store.files.unlink(source)

    def index(self, raw: bytes, directory: bytes) -> None:
        """Let a document become the index of the layout in `directory`.

        Raises:
            NotFound: it needs a manifest or config that is not there; `name` is its digest.
            InvalidContent: it is no index, or what it reaches is malformed.
        """
        layout = self._layout(directory)
        layout.commit(Index.parse(raw, f"index.json of {layout.name}"), existing=True)

    def marker(self, raw: bytes, directory: bytes) -> None:
        """Let a document become the `oci-layout` file in `directory`.

        Raises:
            InvalidContent: it is not one.
        """
        self._layout(directory).mark(raw)

    def read(self, path: bytes, limit: int) -> bytes:
        """Return at most `limit` bytes of an ordinary file."""
        with open(self._store.files.open(path, os.O_RDONLY), "rb") as stream:
            return stream.read(limit)

    def _layout(self, directory: bytes) -> Layout:
        return self._store.layout(PurePosixPath(os.fsdecode(directory)))


def _hash(file: int, algorithm: str) -> Digest:
    running, offset = new_hash(algorithm), 0
    while data := os.pread(file, READ_SIZE, offset):
        running.update(data)
        offset += len(data)
    return Digest(algorithm, running.hexdigest())
