"""Layers packed in one pass each, several at a time: tar, diffID, compression, digest, disk."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from ...oci.descriptor import OCI_MANIFEST, Descriptor
from ...oci.digest import CANONICAL, Digest
from ...oci.errors import InvalidContent
from ...publish.compression import Compression, layer_type
from ...publish.packing import Hashed, Packer
from ...publish.source import Stream
from ...store.blobs import BlobStore
from ...store.index.layers import Layer
from ...store.ingest import Ingest
from ...store.reading import READ_SIZE
from .tarball import LayerTar

if TYPE_CHECKING:
    from ...publish.recognition import Recognition


@dataclass(frozen=True, slots=True)
class PackedLayer:
    """A layer, and what of it is there.

    Attributes:
        diff_id: the digest of the plain tar.
        plain_size: of that, in bytes.
        blob: what it is in a manifest of the wanted type; None if only the previous image knows.
        ingest: the unnamed file of the pool that waits to be committed as that blob; None if
            nothing was written. It is the packer's to close.
        reused: whether the previous image or the store has it.
    """

    diff_id: Digest
    plain_size: int
    blob: Descriptor | None = None
    ingest: Ingest | None = None
    reused: bool = False


class LayerPacker:
    """Packs layers into the pool that their image is staged in. Thread-safe.

    One thread a layer reads, hashes and writes, others compress parts of it; `jobs` layers are
    under way at once, and what waits between the threads is bounded over all of them. What was not
    committed when the block is left is discarded.
    """

    def __init__(
        self,
        blobs: BlobStore,
        compression: Compression,
        *,
        manifest: str = OCI_MANIFEST,
        jobs: int = 0,
        known: Recognition | None = None,
    ) -> None:
        """Make a packer; nothing is started.

        Args:
            blobs: the pool.
            compression: of what is not there yet.
            manifest: the media type of the manifest that the layers are for.
            jobs: layers at once; 0 is one a core.
            known: finds layers in the store.

        Raises:
            InvalidContent: such a manifest cannot have layers that are compressed so.
        """
        layer_type(compression.media_type, manifest)
        jobs = jobs or len(os.sched_getaffinity(0))
        self._blobs = blobs
        self._manifest = manifest
        self._known = known
        self._readers = ThreadPoolExecutor(jobs, "read")
        self._writers = ThreadPoolExecutor(jobs, "pack")
        self._packer = Packer(self._writers, compression)
        self._stopped = threading.Event()
        self._ingests = ExitStack()

    def pack(self, tar: LayerTar, expected: Collection[Digest] = ()) -> Future[PackedLayer]:
        """Start to pack a layer; the previous image has layers with these diffIDs.

        One that may well be there is hashed first, and read again only if it is not: that takes
        a fifth of the processor time of packing it, which would be for nothing otherwise.

        The result raises InvalidContent when a file became shorter, and OSError when one cannot
        be read, or the pool not be written.
        """
        return self._readers.submit(self._pack, tar, expected)

    def close(self) -> None:
        """End what is under way; discard what was not committed."""
        self._stopped.set()
        self._readers.shutdown(cancel_futures=True)
        self._writers.shutdown()
        self._ingests.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _pack(self, tar: LayerTar, expected: Collection[Digest]) -> PackedLayer:
        may_know = self._known is not None and self._known.may_know(tar.size)
        if expected or may_know:
            diff_id = self._hash(tar)
            if diff_id in expected:
                return PackedLayer(diff_id, tar.size, reused=True)
            if may_know and (blob := self._find(diff_id)) is not None:
                return PackedLayer(diff_id, tar.size, blob, reused=True)
        ingest = self._ingests.enter_context(self._blobs.ingest())
        with closing(_Stoppable(tar.open(), self._stopped)) as stream:
            packed = self._packer.pack(stream, ingest, CANONICAL)
        ingest.sync()  # while others are packed
        return self._packed(packed.layer, ingest)

    def _packed(self, layer: Layer, ingest: Ingest) -> PackedLayer:
        return PackedLayer(layer.diff_id, layer.size, self._described(layer.blob), ingest)

    def _hash(self, tar: LayerTar) -> Digest:
        hashed = Hashed(_Stoppable(tar.open(), self._stopped), CANONICAL)
        with closing(hashed):
            while hashed.read(READ_SIZE):
                pass
        return hashed.digest

    def _find(self, diff_id: Digest) -> Descriptor | None:
        """Return a blob of the store that the manifest can have."""
        assert self._known is not None
        blob = self._known.layers([diff_id]).get(diff_id)
        try:
            return blob and self._described(blob)
        except InvalidContent:
            return None

    def _described(self, blob: Descriptor) -> Descriptor:
        media_type = layer_type(blob.media_type, self._manifest)
        return Descriptor(media_type, blob.digest, blob.size)


class _Stoppable:
    """A stream that ends with an error once nobody waits for it any more."""

    def __init__(self, stream: Stream, stopped: threading.Event) -> None:
        self._stream = stream
        self._stopped = stopped

    def read(self, size: int, /) -> bytes:
        if self._stopped.is_set():
            raise CancelledError
        return self._stream.read(size)

    def close(self) -> None:
        self._stream.close()
