"""Compressing layers into unnamed files of the pool."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass
from queue import SimpleQueue

from ..oci.descriptor import Descriptor
from ..oci.digest import Digest, new_hash
from ..store.blobs import READ_SIZE, Ingest
from ..store.layers import Layer
from .compression import GZIP, Compression, read_block
from .source import Stream

ROOM = 16  # blocks of READ_SIZE that may wait for compression
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
    """Compresses layers that come one after the other, while the next ones come.

    Reading and hashing is done by the thread that asks, the rest by those of
    `executor`. What waits is bounded, over all layers.
    """

    def __init__(self, executor: Executor, compression: Compression = GZIP) -> None:
        self._executor = executor
        self._compression = compression
        self._room = threading.BoundedSemaphore(ROOM)

    def pack(self, stream: Stream, ingest: Ingest, algorithm: str) -> Callable[[], Packed]:
        """Read a plain tar to its end and return what waits for its compression.

        The diffID is of `algorithm`. What a thread could not write is raised there.
        """
        plain = Hashed(stream, algorithm)
        pipe = _Pipe(self._room)
        job = self._executor.submit(_compress, pipe, ingest, self._compression)
        try:
            while not pipe.closed and (data := read_block(plain, READ_SIZE)):
                pipe.put(data)
        finally:
            pipe.end()
        if pipe.closed:
            job.result()

        def packed() -> Packed:
            job.result()
            return _packed(plain, ingest, self._compression)

        return packed


class _Pipe:
    """Blocks on their way to another thread, for which this is a stream."""

    def __init__(self, room: threading.Semaphore) -> None:
        self._room = room
        self._blocks: SimpleQueue[bytes] = SimpleQueue()
        self._ended = False
        self.closed = False

    def put(self, block: bytes) -> None:
        """Hand over at most READ_SIZE bytes; waits for room."""
        self._room.acquire()
        self._blocks.put(block)

    def end(self) -> None:
        self._blocks.put(b"")

    def read(self, size: int, /) -> bytes:
        """Return the next block; `size` is what every block but the last has."""
        if self._ended:
            return b""
        block = self._blocks.get()
        if block:
            self._room.release()
        else:
            self._ended = True
        return block

    def close(self) -> None:
        """Tell whoever puts blocks to stop, and take those that are still put."""
        self.closed = True
        while self.read(READ_SIZE):
            pass


def _compress(pipe: _Pipe, ingest: Ingest, compression: Compression) -> None:
    with closing(pipe):
        for data in compression.compressed(pipe):
            ingest.write(data)
