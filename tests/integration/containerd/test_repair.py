"""What rotted in a store comes back from a containerd."""

from pathlib import Path

import pytest

from ocistow.oci.reference import Reference
from ocistow.publish.copy import copy
from ocistow.publish.layout import LayoutSource, StoreSink
from ocistow.publish.repair import Repairer, open_places
from ocistow.publish.transports import open_sink
from ocistow.store.store import Store
from ocistow.testing.images import image_layout
from ocistow.testing.invariants import violations

from .conftest import Containerd

pytestmark = pytest.mark.containerd

NAME = Reference.parse("example.org/back:1")


def test_all_that_was_lost_comes_back(tmp_path: Path, containerd: Containerd) -> None:
    image = image_layout(tmp_path / "layout")
    with open_sink("containerd:app", access=containerd.access) as sink:
        copy(LayoutSource(image.path), sink)
    with Store.create(tmp_path / "store") as store:
        copy(LayoutSource(image.path), StoreSink(store, NAME))
        lost = list(store.blobs)
        for digest in lost:
            store.quarantine.take(digest, store.blobs.stat(digest), iter([NAME.path]))
        with open_places(["containerd:app"], store, containerd.access) as places:
            repairs = list(Repairer(store, {}, places).complete(NAME.path))
        assert {r.digest: r.origin for r in repairs} == dict.fromkeys(lost, "containerd:app")
    assert violations(tmp_path / "store") == []
