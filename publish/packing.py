"""Compressing layers into unnamed files of the pool."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Executor, Future
from dataclasses import dataclass

from ..oci.descriptor import Descriptor
from ..oci.digest import Digest, new_hash
from ..store.index.layers import Layer
from ..store.ingest import Ingest
from .compression import GZIP, Compression, parts
from .source import Stream

ROOM = 16  # parts that may be compressed or wait for it
WORKERS = 2  # threads that compress; each keeps a core busy


@dataclass(frozen=True, slots=True)
class Packed:
    """A layer that was compressed, and where it waits to be committed."""

    layer: Layer
    ingest: Ingest


def pack(stream: Stream, ingest: Ingest, algorithm: str, compression: Compression = GZIP) -> Packed:
    """Compress a plain tar; its diffID is of `algorithm`."""
    plain = Hashed(stream, algorithm)
    for data in compression.compressed(plain):
        ingest.write(data)
    return _packed(plain, ingest, compression)


def _packed(plain: Hashed, ingest: Ingest, compression: Compression) -> Packed:
    blob = Descriptor(compression.media_type, ingest.digest(), ingest.size)
    return Packed(Layer(plain.digest, plain.size, blob), ingest)


class Hashed:
    """A stream that knows the digest and size of what was read from it."""

    def __init__(self, stream: Stream, algorithm: str) -> None:
        self._stream = stream
        self._algorithm = algorithm
        self._hash = new_hash(algorithm)
        self.size = 0

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, and none only at the end."""
        data = self._stream.read(size)
        self._hash.update(data)
        self.size += len(data)
        return data

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()

    @property
    def digest(self) -> Digest:
        """The digest of what was read so far."""
        return Digest(self._algorithm, self._hash.hexdigest())


class Packer:
    """Compresses layers, each by several threads. Thread-safe.

    Who asks for a layer reads, hashes and writes it; the threads of `executor` compress its
    parts. What waits is bounded, over all layers.
    """

    def __init__(self, executor: Executor, compression: Compression = GZIP) -> None:
        self._executor = executor
        self._compression = compression
        self._room = threading.BoundedSemaphore(ROOM)

    def pack(self, stream: Stream, ingest: Ingest, algorithm: str) -> Packed:
        """Compress a plain tar as the function does."""
        plain = Hashed(stream, algorithm)
        waiting: deque[Future[bytes]] = deque()
        try:
            for data in parts(plain):
                while not self._room.acquire(blocking=not waiting):
                    self._write_first(waiting, ingest)
                waiting.append(self._executor.submit(self._compression.part, data))
                while waiting and waiting[0].done():
                    self._write_first(waiting, ingest)
            while waiting:
                self._write_first(waiting, ingest)
        finally:
            for part in waiting:
                part.cancel()
                self._room.release()
        return _packed(plain, ingest, self._compression)

    def _write_first(self, waiting: deque[Future[bytes]], ingest: Ingest) -> None:
        data = waiting.popleft().result()
        self._room.release()
        ingest.write(data)
