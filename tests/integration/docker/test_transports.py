"""Docker daemons, held to the tests of every transport."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ocistow.publish.access import Access
from ocistow.store.store import Store
from ocistow.testing.transport_suite import SinkSuite, SourceSuite
from ocistow.testing.transports import Kind, Peer, WordPeer

from ..conftest import Dockerd

pytestmark = [pytest.mark.docker, pytest.mark.slow]

PREFIX = "transport-suite"


@pytest.fixture(params=["dockerd", "dockerd_26", "dockerd_26_containerd"])
def kind(request: pytest.FixtureRequest) -> Kind:
    dockerd = request.getfixturevalue(request.param)
    assert isinstance(dockerd, Dockerd)

    @contextmanager
    def opened(path: Path) -> Generator[Peer]:
        with Store.create(path / "beside") as store:
            access = Access(docker_host=dockerd.host)
            yield WordPeer(lambda name: f"docker-daemon:{PREFIX}/{name}", store, access)
        pattern = f"reference={PREFIX}/*"
        for image in set(dockerd.run("images", "--quiet", "--filter", pattern).split()):
            dockerd.run("rmi", "--force", image)

    is_classic = request.param != "dockerd_26_containerd"
    return Kind(
        request.param,
        opened,
        keeps="config" if is_classic else "manifest",
        indexes=False,
        artifacts=False,
        loses=is_classic,
    )


@pytest.fixture
def peer(kind: Kind, tmp_path: Path) -> Iterator[Peer]:
    with kind.open(tmp_path) as found:
        yield found


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "store") as store:
        yield store


class TestSinks(SinkSuite):
    """The suite, for each daemon."""


class TestSources(SourceSuite):
    """The suite, for each daemon."""
