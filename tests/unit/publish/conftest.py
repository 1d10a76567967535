"""A store, a repository of an in-process registry, and what a failed copy must not change."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ocistow.oci.digest import Digest
from ocistow.oci.reference import Reference
from ocistow.publish.access import Access
from ocistow.publish.copy import copy
from ocistow.publish.distribution.endpoint import Endpoint
from ocistow.publish.distribution.repository import Repository
from ocistow.publish.distribution.transport import Transport
from ocistow.publish.layout import LayoutSource, StoreSink
from ocistow.store.store import Store
from ocistow.testing.faults import Cut, Drip, Hang
from ocistow.testing.images import GeneratedImage, image_layout
from ocistow.testing.registry import Registry

NAME = Reference.parse("example.org/app:1")
IMPATIENT = (10.0, 0.5)  # seconds; for a peer that hangs, which it does for ever


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "store") as store:
        yield store


@pytest.fixture
def image(tmp_path: Path) -> GeneratedImage:
    return image_layout(tmp_path / "layout", layers=3)


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as registry:
        yield registry


@pytest.fixture
def waits() -> list[float]:
    """The seconds that the transport of `repository` would have waited between tries."""
    return []


@pytest.fixture
def access(request: pytest.FixtureRequest) -> Access:
    """The usual timeouts, but in a test whose parameter `action` lets the registry hang."""
    callspec = getattr(request.node, "callspec", None)
    return access_for(callspec.params.get("action") if callspec else None)


def access_for(action: object) -> Access:
    """Return timeouts that only a registry with that fault is to exceed."""
    return Access(timeout=IMPATIENT) if isinstance(action, Hang | Drip | Cut) else Access()


@pytest.fixture
def repository(registry: Registry, access: Access, waits: list[float]) -> Iterator[Repository]:
    endpoint = Endpoint(registry.host, plain_http=True)
    with Transport(endpoint, access, waits.append) as transport:
        yield Repository(transport, "app")


@pytest.fixture
def named(tmp_path: Path, store: Store) -> Iterator[Digest]:
    """Give another image the name first; at the end it must have it, and the pool be sound."""
    other = image_layout(tmp_path / "other", seed=99, layers=1)
    copy(LayoutSource(other.path), StoreSink(store, NAME))
    yield other.manifest
    [root] = store.layout(NAME.path).index().manifests
    assert root.digest == other.manifest
    assert_sound(store)


def assert_sound(store: Store) -> None:
    for digest in store.blobs:
        with open(store.blobs.open(digest), "rb") as file:
            assert Digest.of(file.read(), digest.algorithm) == digest
