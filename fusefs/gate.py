"""What lets content become visible: blocking calls, made in worker threads with plain values."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath

from ..oci.digest import Digest, is_encoded
from ..oci.errors import DigestMismatch, InvalidContent
from ..oci.manifest import Index
from ..store.collection.roots import mentioned
from ..store.ingest import Ingest
from ..store.layout import Layout
from ..store.reading import READ_SIZE, digest_of_file
from ..store.store import Store
from .counters import Counters
from .promises import Promises
from .staging import Staging

KnownDigest = Callable[[int, str], Digest | None]


class Gate:
    """The ways into the pool and into a layout's index. Paths are below the layout root.

    `sparse` leaves the layers that an index mentions and nobody wrote out of its layout.
    """

    def __init__(
        self, store: Store, promises: Promises, counters: Counters, *, sparse: bool = False
    ) -> None:
        self._store = store
        self._sparse = sparse
        self._promises = promises
        self._counters = counters

    def promise(self, digest: Digest, directory: bytes) -> None:
        """Keep a blob, and the others that its layout has, from garbage collection.

        All at once, since a client that reads an image looks up all of them, and each promise
        costs a transaction. What no index mentions is garbage, even if a layout has it.
        """
        names = map(os.fsdecode, self._store.files.list(directory))
        own = [Digest(digest.algorithm, n) for n in names if is_encoded(digest.algorithm, n)]
        self._promises.make([digest, *own])

    def blob(self, staging: Staging, digest: Digest, path: bytes | None) -> bool:
        """Let a staged file become the blob at `path`, or of the pool alone.

        Returns whether the file itself now is, or may stand for, the blob. If not, somebody can
        still write to it without asking, and its content was copied.

        Raises:
            DigestMismatch: its content has another digest; nothing changed.
        """
        if staging.is_passed:
            return self._passed(staging.ingest, digest, path)
        known = staging.known
        if known is not None and known.algorithm == digest.algorithm:
            if known != digest:
                raise DigestMismatch(digest, known)
            self._promises.make([digest])
            if digest in self._store.blobs:
                self._link(digest, path)
                self._counters.add("present", staging.size, path)
                return True
        staging.fill()
        self._commit(staging.ingest, digest, path)
        return True

    def _passed(self, ingest: Ingest, digest: Digest, path: bytes | None) -> bool:
        # Handles do not tell: a shared mapping outlives the file that it was made by.
        with self._store.files.fenced(ingest.file) as alone:
            if alone:
                ingest.reread()
                self._commit(ingest, digest, path)
            else:
                self._copied(ingest.file, digest, path)
        return alone

    def _commit(self, ingest: Ingest, digest: Digest, path: bytes | None) -> None:
        if ingest.digest(digest.algorithm) == digest:
            self._promises.make([digest])  # before it is seen whether the pool has it already
        kind = "present" if digest in self._store.blobs else "committed"
        ingest.commit(digest)
        self._link(digest, path)
        self._counters.add(kind, ingest.size, path)

    def _copied(self, file: int, digest: Digest, path: bytes | None) -> None:
        with self._store.blobs.ingest(digest.algorithm) as ingest:
            for chunk in _chunks(file):
                ingest.write(chunk)
            self._commit(ingest, digest, path)

    def _link(self, digest: Digest, path: bytes | None) -> None:
        if path is not None:
            self._store.files.link_blob(digest, path)

    def adopt(self, file: int, known: KnownDigest | None, digest: Digest, path: bytes) -> bool:
        """Let an ordinary file become the blob at `path`; its old name is the caller's to end.

        `known` returns the digest that was taken while it was written, if the file is as it was
        then; None of a file that may not be as it seems to be, since the disk failed. Of that,
        and while anybody could still write to the file, the content is copied instead.
        Returns whether the file itself now is, or may stand for, the blob.

        Raises:
            DigestMismatch: its content has another digest; nothing changed.
        """
        with self._store.files.fenced(file) as alone:
            if alone and known is not None:
                actual = known(file, digest.algorithm) or digest_of_file(file, digest.algorithm)
                if actual != digest:
                    raise DigestMismatch(digest, actual)
                self._promises.make([digest])
                kind = "present" if digest in self._store.blobs else "committed"
                if kind == "committed":
                    self._store.blobs.adopt(file, digest)
                size = os.fstat(file).st_size
            else:
                self._copied(file, digest, path)
                return False
        self._store.files.link_blob(digest, path)
        self._counters.add(kind, size, path)
        return True

    def index(self, raw: bytes, directory: bytes) -> None:
        """Let a document become the index of the layout in `directory`.

        Raises:
            NotFound: it needs a manifest or config that is not there; `name` is its digest.
            InvalidContent: it is no index, or what it reaches is malformed.
        """
        layout = self._layout(directory)
        index = Index.parse(raw, f"index.json of {layout.name}")
        for descriptor in layout.commit(index, existing=True, sparse=self._sparse):
            name = os.fsencode(f"blobs/{descriptor.digest.algorithm}/{descriptor.digest.encoded}")
            self._counters.add("saved", descriptor.size, b"%b/%b" % (directory, name))

    def marker(self, raw: bytes, directory: bytes) -> None:
        """Let a document become the `oci-layout` file in `directory`.

        Raises:
            InvalidContent: it is not one.
        """
        self._layout(directory).mark(raw)

    def layers(self, directory: bytes) -> Mapping[Digest, int]:
        """Return the layers that the index of a layout mentions, with their sizes.

        None if nobody can tell.
        """
        try:
            return mentioned(self._layout(directory)).layers
        except (InvalidContent, OSError):
            return {}

    def read(self, path: bytes, limit: int) -> bytes:
        """Return at most `limit` bytes of an ordinary file."""
        with open(self._store.files.open(path, os.O_RDONLY), "rb") as stream:
            return stream.read(limit)

    def _layout(self, directory: bytes) -> Layout:
        return self._store.layout(PurePosixPath(os.fsdecode(directory)))


def _chunks(file: int) -> Iterator[bytes]:
    offset = 0
    while data := os.pread(file, READ_SIZE, offset):
        yield data
        offset += len(data)
