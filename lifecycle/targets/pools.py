"""Pools for layers on their way to where no pool is."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ...store.blobs import BlobStore
from ..staging import Staging


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
