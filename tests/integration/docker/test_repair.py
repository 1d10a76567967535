"""What rotted in a store comes back from a Docker daemon, as far as that has it."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from ocistow.oci.digest import Digest
from ocistow.oci.reference import Reference
from ocistow.publish.access import Access
from ocistow.publish.copy import copy
from ocistow.publish.layout import LayoutSource, StoreSink
from ocistow.publish.repair import Repairer, open_places
from ocistow.publish.transports import open_sink
from ocistow.store.store import Store
from ocistow.testing.images import GeneratedImage, image_layout
from ocistow.testing.invariants import violations

from ..conftest import Dockerd

pytestmark = pytest.mark.docker

NAME = Reference.parse("example.org/rotten:1")
DAEMON = "docker-daemon:example.org/rotten:1"


def repaired(store: Store, image: GeneratedImage, lost: Iterable[Digest], access: Access) -> bool:
    with open_sink(DAEMON, access=access) as sink:
        copy(LayoutSource(image.path), sink)
    for digest in lost:
        store.quarantine.take(digest, store.blobs.stat(digest), iter([NAME.path]))
    with open_places([DAEMON], store, access) as places:
        repairs = list(Repairer(store, {}, places).complete(NAME.path))
    return {r.digest for r in repairs if r.origin == DAEMON} == set(lost)


def test_containerds_image_store_gives_back_everything(
    tmp_path: Path, dockerd_26_containerd: Dockerd
) -> None:
    image = image_layout(tmp_path / "layout")
    with Store.create(tmp_path / "store") as store:
        copy(LayoutSource(image.path), StoreSink(store, NAME))
        access = Access(docker_host=dockerd_26_containerd.host)
        assert repaired(store, image, list(store.blobs), access)
    assert violations(tmp_path / "store") == []


def test_the_classic_store_gives_back_a_config(tmp_path: Path, dockerd: Dockerd) -> None:
    image = image_layout(tmp_path / "layout")
    with Store.create(tmp_path / "store") as store:
        copy(LayoutSource(image.path), StoreSink(store, NAME))
        assert repaired(store, image, [image.config], Access(docker_host=dockerd.host))
    assert violations(tmp_path / "store") == []
