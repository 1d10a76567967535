"""Pools for layers on their way to where no pool is."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ...oci.descriptor import Descriptor
from ...publish.source import Source
from ...store.blobs import BlobStore
from ...store.store import Store
from ..images.staging import Staging


@contextmanager
def temporary_pool() -> Generator[BlobStore]:
    """Yield a pool in the directory for temporary files, gone when the block is left."""
    with TemporaryDirectory(prefix="ocistow-") as directory, BlobStore(Path(directory)) as pool:
        yield pool


@contextmanager
def temporary_staging() -> Generator[Staging]:
    """Yield such a pool for the layers of one image."""
    with temporary_pool() as pool:
        yield Staging(pool)


def staging_of(store: Store) -> Staging:
    """Return the pool of a store, which recognises layers that it has."""
    from ...publish.recognition import Recognition

    return Staging(store.blobs, Recognition(store))


def keep_packed(pool: BlobStore, source: Source, layers: Iterable[Descriptor]) -> None:
    """Let a pool keep the layers that were packed in it and then saved elsewhere.

    No image of the store has them, so garbage collection removes them one day.
    """
    for layer in layers:
        if layer.digest in pool:
            continue
        with source.open(layer) as blob:
            if blob.ingest is not None and blob.ingest.blobs is pool:
                blob.ingest.commit(layer.digest)
    pool.sync()
