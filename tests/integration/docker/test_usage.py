"""What daemons say that images cost, put beside the images of a store."""

from collections.abc import Generator
from pathlib import Path

import pytest

from ocistow.audit.daemon import Account, account, compare
from ocistow.audit.tables import shown
from ocistow.audit.usage import usage
from ocistow.oci.reference import Reference
from ocistow.publish.access import Access
from ocistow.publish.copy import copy
from ocistow.publish.docker.engine import Engine
from ocistow.publish.docker.host import find_host
from ocistow.publish.layout import LayoutSource, StoreSink
from ocistow.publish.transports import open_sink
from ocistow.store.store import Store
from ocistow.testing.images import GeneratedImage, image_layout

from ..conftest import Dockerd

pytestmark = pytest.mark.docker

LAYER = 200_000


@pytest.fixture
def store(tmp_path: Path) -> Generator[Store]:
    with Store.create(tmp_path / "store") as store:
        yield store


def add(store: Store, image: GeneratedImage, name: str) -> None:
    copy(LayoutSource(image.path), StoreSink(store, Reference.parse(name)))


def publish(daemon: Dockerd, image: GeneratedImage, name: str) -> None:
    with open_sink(f"docker-daemon:{name}", access=Access(docker_host=daemon.host)) as sink:
        copy(LayoutSource(image.path), sink)


def asked(daemon: Dockerd) -> Account:
    access = Access(docker_host=daemon.host)
    with Engine(find_host(access), access.timeout) as engine:
        return account(engine)


def test_the_images_of_the_store_are_found(store: Store, tmp_path: Path, each: Dockerd) -> None:
    base = image_layout(tmp_path / "base", seed=71, layers=2, layer_size=LAYER)
    app = image_layout(tmp_path / "app", seed=72, layers=1, layer_size=LAYER, base=base)
    for blob in (base.path / "blobs" / "sha256").iterdir():
        there = app.path / "blobs" / "sha256" / blob.name
        if not there.exists():
            there.write_bytes(blob.read_bytes())
    other = image_layout(tmp_path / "other", seed=73, layers=1, layer_size=LAYER)
    absent = image_layout(tmp_path / "absent", seed=74, layers=1, layer_size=LAYER)
    for image, name in ((base, "usage/base:1"), (app, "usage/app:1"), (app, "usage/app:2")):
        add(store, image, name)
        publish(each, image, name)
    add(store, absent, "usage/absent:1")
    publish(each, other, "usage/other:1")
    found = asked(each)
    assert found.daemon == f"docker daemon at {each.host}"
    names = {name for image in found.images for name in image.names}
    assert {"usage/base:1", "usage/app:1", "usage/app:2", "usage/other:1"} <= names
    compared = compare(store, usage(store), found)
    called = {shown(row.cost): [set(i.names) for i in row.images] for row in compared.rows}
    app_names = {"usage/app:1", "usage/app:2"}
    assert called == {
        "index.docker.io/usage/base:1": [{"usage/base:1"}],
        "index.docker.io/usage/app:1": [app_names],
        "index.docker.io/usage/app:2": [app_names],
    }
    assert compared.others >= 1
    assert compared.together == usage(store, [row.cost.name for row in compared.rows]).total.on_disk
    [held] = compared.rows[0].images
    assert set(held.names) == app_names
    assert 3 * LAYER <= held.size < 10 * LAYER
    assert held.shared is not None
    assert 2 * LAYER <= held.shared < held.size
    assert held.unique == held.size - held.shared
    assert found.total >= 4 * LAYER
