"""Everything that stores blobs, held to the same tests.

Another kind is another entry of KINDS: a function that opens an empty store below a
directory, and how it refuses wrong content.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ocistow.store.blobs import BlobStore
from ocistow.store.named_disk import NamedDisk
from ocistow.testing.blob_suite import Blobs, BlobSuite, DirectoryBlobs, Kind


@contextmanager
def pool(path: Path) -> Generator[Blobs]:
    with BlobStore(path) as blobs:
        yield blobs


@contextmanager
def named(path: Path) -> Generator[Blobs]:
    with BlobStore(path, NamedDisk(), 0o644) as blobs:
        yield blobs


@contextmanager
def directory(path: Path) -> Generator[Blobs]:
    yield DirectoryBlobs(path / "blobs")


KINDS = [
    Kind("pool", pool),
    Kind("pool without unnamed files", named),
    Kind("directory", directory, checks=False),  # shows that the suite asks nothing impossible
]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    found = request.param
    assert isinstance(found, Kind)
    return found


@pytest.fixture
def blobs(kind: Kind, tmp_path: Path) -> Iterator[Blobs]:
    with kind.open(tmp_path) as found:
        yield found


class TestBlobs(BlobSuite):
    """The suite, for each kind."""
