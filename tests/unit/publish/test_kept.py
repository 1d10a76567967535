"""Names that get another image while somebody looks at what they mean."""

import time

import pytest

from ocistow.oci.descriptor import Descriptor
from ocistow.oci.errors import Busy, NotFound
from ocistow.oci.reference import Reference
from ocistow.publish.kept import TRIES, kept
from ocistow.publish.layout import StoreSource
from ocistow.store.collection.collector import Collector
from ocistow.store.store import Store
from ocistow.testing.invariants import violations
from ocistow.testing.minimal import MinimalImage, minimal_image

A = minimal_image("a", ["one", "both"])
B = minimal_image("b", ["two", "both"])
NAME = Reference.parse("example.com/app:1")
NEW = Reference.parse("example.com/app:2")


def put(store: Store, image: MinimalImage) -> None:
    image.add_to(store.blobs)
    store.put(NAME, image.root)


def collect(store: Store) -> None:
    Collector(store, grace=0, clock=lambda: time.time() + 10).collect()


class Replaced(StoreSource):
    """An image whose name gets another one `times` times, just after somebody read it."""

    def __init__(self, store: Store, times: int) -> None:
        super().__init__(store.layout(NAME.path))
        self.store = store
        self.times = times

    def resolve(self) -> Descriptor:
        root = super().resolve()
        if self.times:
            self.times -= 1
            put(self.store, A if root.digest == B.root.digest else B)
            collect(self.store)
        return root


@pytest.mark.parametrize("times", range(4))
def test_what_a_name_means_once_it_is_leased_is_whole(store: Store, times: int) -> None:
    put(store, A)
    with kept(Replaced(store, times), store.leases) as source:
        root = source.resolve()
        put(store, A if root.digest == B.root.digest else B)
        collect(store)
        store.put(NEW, root)
    assert violations(store.path) == []


def test_half_collected_layers_are_not_taken_for_left_out(store: Store) -> None:
    """A collection rests between two batches: the manifest may be there, and its layers not."""
    put(store, A)

    class Halved(Replaced):
        def resolve(self) -> Descriptor:
            root = StoreSource.resolve(self)
            if self.times:
                self.times -= 1
                put(store, B)
                for digest, content in A.blobs.items():
                    if content.startswith(b"layer") and digest not in B.blobs:
                        store.blobs.delete(digest)
                        store.layout(NAME.path).unlink(digest)
            return root

    with kept(Halved(store, 1), store.leases) as source:
        store.put(NEW, source.resolve())
    assert store.layout(NEW.path).index().manifests[0].digest == B.root.digest
    assert violations(store.path) == []


def test_a_name_that_is_always_replaced_is_told(store: Store) -> None:
    put(store, A)
    with (
        pytest.raises((Busy, NotFound)),
        kept(Replaced(store, 2 * TRIES), store.leases),
    ):
        pytest.fail("it was never the same twice")
    assert not any((store.path / "leases").iterdir())


def test_a_name_that_is_gone(store: Store) -> None:
    with pytest.raises(NotFound), kept(Replaced(store, 0), store.leases):
        pytest.fail("there is none")
