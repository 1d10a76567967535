"""containerd, held to the tests of every transport."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ocistow.store.store import Store
from ocistow.testing.transport_suite import SinkSuite, SourceSuite
from ocistow.testing.transports import Kind, Peer, WordPeer

from .conftest import Containerd


@pytest.fixture
def kind(containerd: Containerd) -> Kind:
    @contextmanager
    def opened(path: Path) -> Generator[Peer]:
        with Store.create(path / "beside") as store:
            yield WordPeer(lambda name: f"containerd:e.x/{name}", store, containerd.access)

    return Kind("containerd", opened, names_digests=True)


@pytest.fixture
def peer(kind: Kind, tmp_path: Path) -> Iterator[Peer]:
    with kind.open(tmp_path) as found:
        yield found


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "store") as store:
        yield store


class TestSinks(SinkSuite):
    """The suite."""


class TestSources(SourceSuite):
    """The suite."""
