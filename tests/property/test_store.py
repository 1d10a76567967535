"""A store is a dictionary from names to images."""

import contextlib
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ocistow.oci.errors import InvalidContent, NotFound
from ocistow.oci.reference import Reference
from ocistow.store.store import Store
from ocistow.testing.disk import QuickDisk
from ocistow.testing.invariants import images, strays, violations
from ocistow.testing.minimal import MinimalImage, minimal_image, minimal_index

A = minimal_image("a")
IMAGES = st.sampled_from((A, minimal_image("b", ["two"]), minimal_index(A, minimal_image("c"))))
H = "0" * 64
NAMES = st.sampled_from(
    [
        Reference.parse(text)
        for text in (
            "r.io/a:1",
            "r.io/a:2",
            f"r.io/a@sha256:{H}",
            "r.io/a:sha256",
            "r.io/a:index.json",
            "r.io/a:blobs",
            "r.io/a/1:b",
            "r.io/a/1/blobs:x",
            "r.io/a/oci-layout:x",
            "s.io/a:1",
        )
    ]
)


class Dictionary(RuleBasedStateMachine):
    """Compares a store with a dictionary; names that would lie in each other are refused."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name, "store")
        self.disk = QuickDisk()
        self.store = Store.create(self.path, self.disk)
        self.model: dict[Reference, MinimalImage] = {}

    @rule(reference=NAMES, image=IMAGES)
    def put(self, reference: Reference, image: MinimalImage) -> None:
        image.add_to(self.store.blobs)
        paths = [other.path for other in self.model if other != reference]
        nested = any(
            reference.path.is_relative_to(path) or path.is_relative_to(reference.path)
            for path in paths
        )
        with contextlib.suppress(InvalidContent):
            self.store.put(reference, image.root)
            assert not nested
            nested = True
        assert nested
        if not any(
            reference.path.is_relative_to(path) or path.is_relative_to(reference.path)
            for path in paths
        ):
            self.model[reference] = image

    @rule(reference=NAMES)
    def remove(self, reference: Reference) -> None:
        try:
            assert self.store.find(str(reference)).remove() == []
        except NotFound:
            assert reference not in self.model
        else:
            del self.model[reference]

    @rule()
    def open_again(self) -> None:
        self.store.close()
        self.store = Store.open(self.path, self.disk)

    @invariant()
    def holds_what_was_put(self) -> None:
        expected = {str(name.path): str(image.root.digest) for name, image in self.model.items()}
        assert images(self.path) == expected
        assert [str(name) for name in self.store.names()] == sorted(
            expected, key=lambda name: name.split("/")
        )
        for reference, image in self.model.items():
            layout = self.store.find(str(reference))
            [root] = layout.index().manifests
            assert root == image.root
            assert {digest for digest, _ in layout.linked()} >= image.blobs.keys()

    @invariant()
    def keeps_its_promises(self) -> None:
        assert violations(self.path) == []
        assert strays(self.path) == []

    def teardown(self) -> None:
        self.store.close()
        self.directory.cleanup()


TestDictionary = Dictionary.TestCase
TestDictionary.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
