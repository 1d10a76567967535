"""Every transport that needs no other program, held to the same tests."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ocistow.store.store import Store
from ocistow.testing.registry import Registry
from ocistow.testing.transport_suite import SinkSuite, SourceSuite
from ocistow.testing.transports import Kind, Peer, StorePeer, WordPeer


@contextmanager
def a_store(path: Path) -> Generator[Peer]:
    with Store.create(path / "there") as store, Store.create(path / "beside") as beside:
        yield StorePeer(store, beside)


@contextmanager
def a_layout(path: Path) -> Generator[Peer]:
    with Store.create(path / "beside") as store:
        yield WordPeer(lambda name: f"oci:{path / 'there'}:{name}", store)


@contextmanager
def an_oci_archive(path: Path) -> Generator[Peer]:
    with Store.create(path / "beside") as store:
        yield WordPeer(
            lambda name: f"oci-archive:{path / name.partition('@')[0]}.tar:{name}", store
        )


@contextmanager
def a_docker_archive(path: Path) -> Generator[Peer]:
    with Store.create(path / "beside") as store:
        yield WordPeer(
            lambda name: f"docker-archive:{path / name.partition('@')[0]}.tar:{name}", store
        )


@contextmanager
def a_registry(path: Path) -> Generator[Peer]:
    with Store.create(path / "beside") as store, Registry() as registry:
        yield WordPeer(lambda name: f"docker://{registry.host}/{name}", store)


KINDS = [
    Kind("store", a_store, names_digests=True),
    Kind("layout", a_layout, references=False),
    Kind("oci-archive", an_oci_archive, remembers=False, references=False),
    Kind(
        "docker-archive",
        a_docker_archive,
        keeps="config",
        remembers=False,
        indexes=False,
        artifacts=False,
    ),
    Kind("registry", a_registry, names_digests=True),
]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    found = request.param
    assert isinstance(found, Kind)
    return found


@pytest.fixture
def peer(kind: Kind, tmp_path: Path) -> Iterator[Peer]:
    with kind.open(tmp_path) as found:
        yield found


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "store") as store:
        yield store


class TestSinks(SinkSuite):
    """The suite, for each kind."""


class TestSources(SourceSuite):
    """The suite, for each kind."""
