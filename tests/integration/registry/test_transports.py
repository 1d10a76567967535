"""distribution's registry, held to the tests of every transport."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ocistow.store.store import Store
from ocistow.testing.transport_suite import SinkSuite, SourceSuite
from ocistow.testing.transports import Kind, Peer, WordPeer

from ..conftest import DockerRegistry

pytestmark = pytest.mark.registry


@pytest.fixture
def kind(docker_registry: DockerRegistry) -> Kind:
    @contextmanager
    def opened(path: Path) -> Generator[Peer]:
        with Store.create(path / "beside") as store:
            place = f"docker://{docker_registry.host}/{path.name.lower()}"
            yield WordPeer(lambda name: f"{place}/{name}", store)

    return Kind("docker-registry", opened, names_digests=True)


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
