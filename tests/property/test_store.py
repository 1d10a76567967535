"""A store is a dictionary from names to images, whatever befalls it."""

import contextlib
import itertools
import os
import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ocistow.audit.usage import usage
from ocistow.oci.digest import Digest
from ocistow.oci.errors import InvalidContent, NotFound
from ocistow.oci.reference import Reference
from ocistow.publish.access import Access
from ocistow.publish.linking import link, places
from ocistow.publish.repair import Repairer, open_places
from ocistow.store.collection.collector import Collector
from ocistow.store.collection.retention import Rule, drop, outdated
from ocistow.store.leases import Owner
from ocistow.store.links import AUTO, Links, Way
from ocistow.store.reindex import reindex
from ocistow.store.sharing.dedupe import plan
from ocistow.store.sharing.duplicates import Mode
from ocistow.store.sharing.journal import close_journal, journals
from ocistow.store.sharing.replacement import carry_out
from ocistow.store.sharing.undo import undo
from ocistow.store.store import Store
from ocistow.store.verification.layouts import LayoutChecker
from ocistow.store.verification.surroundings import directories
from ocistow.store.verification.verifier import Choice, Verifier
from ocistow.testing.disk import FailingDisk, QuickDisk
from ocistow.testing.invariants import images, pool, strays, violations
from ocistow.testing.minimal import MinimalImage, minimal_image, minimal_index

A = minimal_image("a")
SPARSE = minimal_image("sparse", ["one", "elsewhere"])
ABSENT = Digest.of(b"layer elsewhere")  # a layer that the store never gets
ALL = (
    A,
    minimal_image("b", ["two"]),
    minimal_index(A, minimal_image("c")),
    minimal_image("without layers", []),
    minimal_index(minimal_index(minimal_image("d", ["one"]))),
    SPARSE,
)
IMAGES = st.sampled_from(ALL)
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
MEMORY = Path("/dev/shm")
EXAMPLES = int(os.environ.get("OCISTOW_FUZZ", "15"))


def present(image: MinimalImage) -> dict[Digest, bytes]:
    return {digest: content for digest, content in image.blobs.items() if digest != ABSENT}


class Dictionary(RuleBasedStateMachine):
    """Compares a store with a dictionary; names that would lie in each other are refused.

    Two processes have it open. Beside it are plain layouts that share its blobs, a good
    store with every image, and owners of leases.
    """

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)
        self.top = Path(self.directory.name)
        self.path = self.top / "store"
        self.disk = QuickDisk()
        self.stores = [Store.create(self.path, self.disk), Store.open(self.path, self.disk)]
        self.model: dict[Reference, MinimalImage] = {}
        self.outside: dict[Path, MinimalImage] = {}
        self.rotten: set[str] = set()  # what plain layouts may have had links to
        self.numbers = itertools.count()
        self.owners: list[tuple[Owner, MinimalImage]] = []
        with Store.create(self.top / "good", self.disk) as good:
            for image in ALL:
                image.add_to(good.blobs)

    @property
    def store(self) -> Store:
        """Either process, in turn."""
        self.stores.reverse()
        return self.stores[0]

    def is_nested(self, reference: Reference) -> bool:
        return any(
            reference.path.is_relative_to(other.path) or other.path.is_relative_to(reference.path)
            for other in self.model
            if other != reference
        )

    def put(self, reference: Reference, image: MinimalImage, store: Store) -> None:
        nested = self.is_nested(reference)
        image.add_to(store.blobs, without=[ABSENT])
        with contextlib.suppress(InvalidContent):
            store.put(reference, image.root)
            assert not nested
            self.model[reference] = image
            return
        assert nested

    def known(self, number: int) -> Reference:
        return sorted(self.model)[number % len(self.model)]

    @rule(reference=NAMES, image=IMAGES)
    def add(self, reference: Reference, image: MinimalImage) -> None:
        self.put(reference, image, self.store)

    @rule(reference=NAMES, image=IMAGES, at=st.integers(0, 40))
    def add_when_the_disk_fails(self, reference: Reference, image: MinimalImage, at: int) -> None:
        before = self.model.get(reference)
        with Store.open(self.path, FailingDisk(at)) as failing:
            try:
                self.put(reference, image, failing)
            except OSError:
                index = self.path / "layouts" / reference.path / "index.json"
                if index.is_file() and str(image.root.digest) in index.read_text():
                    self.model[reference] = image  # it failed afterwards
                assert self.model.get(reference) in (before, image)
        self.put(reference, image, self.store)

    @precondition(lambda self: self.model)
    @rule(number=st.integers(0, 9), reference=NAMES)
    def tag(self, number: int, reference: Reference) -> None:
        name = self.known(number)
        [root] = self.store.find(str(name)).index().manifests
        nested = self.is_nested(reference)
        with contextlib.suppress(InvalidContent):
            self.store.put(reference, root)
            assert not nested
            self.model[reference] = self.model[name]
            return
        assert nested

    @rule(reference=NAMES)
    def remove(self, reference: Reference) -> None:
        try:
            assert self.store.find(str(reference)).remove() == []
        except NotFound:
            assert reference not in self.model
        else:
            del self.model[reference]

    @precondition(lambda self: self.model)
    @rule(number=st.integers(0, 9), ways=st.sampled_from((AUTO, (Way.SYMLINK,), (Way.COPY,))))
    def link_elsewhere(self, number: int, ways: tuple[Way, ...]) -> None:
        name = self.known(number)
        image = self.model[name]
        if ABSENT in image.blobs:
            return
        target, store = self.top / f"linked-{next(self.numbers)}", self.store
        [place] = places([name.path], target)
        link(store, store.find(str(name)), place, Links(store.blobs, ways), disk=self.disk)
        if ways != (Way.SYMLINK,):  # which gc may leave without a target
            self.outside[place.path] = image

    @rule(image=IMAGES, twice=st.booleans())
    def dedupe(self, image: MinimalImage, twice: bool) -> None:
        top, store = self.top / f"tree-{next(self.numbers)}", self.store
        for name in ("one", "two")[: 1 + twice]:
            image.write_to(top / name)
            self.outside[top / name] = image
        carry_out(plan([top], store.blobs, Mode.HARDLINK), store, self.disk)

    @rule()
    def undo_dedupe(self) -> None:
        for journal in reversed(journals(self.path)):
            left = undo(journal, self.disk).left
            assert {one.path.name for one in left} <= self.rotten
            close_journal(journal, self.disk)

    @rule()
    def collect(self) -> None:
        store = self.store
        Collector(store, grace=0).collect()
        leased = {digest for _, image in self.owners for digest in image.blobs}
        needed = {digest for image in self.model.values() for digest in image.blobs}
        held = pool(self.path)
        assert {str(digest) for digest in needed - {ABSENT}} <= held
        assert held <= {str(digest) for digest in needed | leased}

    @rule()
    def collect_nothing_recent(self) -> None:
        before = pool(self.path)
        Collector(self.store, grace=3600).collect()
        assert pool(self.path) == before

    @rule(last=st.integers(0, 2))
    def keep_the_last(self, last: int) -> None:
        store = self.store
        gone = {one.name for one in drop(store, outdated(store, Rule(last)))}
        held = {digest for _, image in self.owners for digest in image.blobs}
        left = {r: i for r, i in self.model.items() if r.path not in gone}
        assert len(left) == len(self.model) - len(gone)
        kept = Counter(
            (r.registry, r.repository) for r, i in left.items() if i.root.digest not in held
        )
        assert all(number <= last for number in kept.values())
        self.model = left

    @rule()
    def drop_what_is_old(self) -> None:
        assert drop(self.store, outdated(self.store, Rule(older_than=3600))) == []

    @precondition(lambda self: self.model)
    @rule(number=st.integers(0, 9), which=st.integers(0, 9), full=st.booleans())
    def rot_and_repair(self, number: int, which: int, full: bool) -> None:
        blobs = sorted(present(self.model[self.known(number)]))
        digest = blobs[which % len(blobs)]
        file = self.path / "blobs" / digest.algorithm / digest.encoded
        if not file.read_bytes():
            return
        file.chmod(0o644)
        with file.open("r+b") as opened:
            first = opened.read(1)
            opened.seek(0)
            opened.write(bytes([first[0] ^ 1]))
        file.chmod(0o444)
        self.outside = {p: i for p, i in self.outside.items() if digest not in i.blobs}
        self.rotten.add(digest.encoded)
        assert self.mend(full=full) == {digest}
        assert self.mend(full=True) == set()

    def mend(self, *, full: bool) -> set[Digest]:
        """Return what is bad, after all images have it again."""
        store = self.store
        verifier = Verifier(store, Choice(full=full))
        checker = LayoutChecker(store, verifier)
        with closing(verifier.run()) as findings:
            list(findings)
        for directory in directories(store):
            list(checker.check(directory))
        for digest, files in verifier.tally.bad.items():
            for file in files:
                store.quarantine.take(digest, file, (d.name for d in directories(store)))
        with open_places([str(self.top / "good")], store, Access()) as opened:
            repairer = Repairer(store, checker.copies, opened)
            for name in checker.incomplete:
                for repair in repairer.complete(name):
                    assert repair.origin or repair.digest == ABSENT
        return set(verifier.tally.bad)

    @rule(what=st.sampled_from((b"", b"SQLite format 3\0", b"x" * 5000, None)))
    def lose_the_database(self, what: bytes | None) -> None:
        database = self.path / "index.sqlite"
        for file in self.path.glob("index.sqlite*"):
            file.unlink()
        if what is not None:
            database.write_bytes(what)

    @rule()
    def reindex(self) -> None:
        store = self.store
        reindex(store.index, store.blobs)

    @rule(image=IMAGES)
    def take_leases(self, image: MinimalImage) -> None:
        owner = self.store.leases.owner()
        owner.take(image.blobs)
        self.owners.append((owner, image))

    @precondition(lambda self: self.owners)
    @rule()
    def end_leases(self) -> None:
        self.owners.pop(0)[0].close()

    @rule()
    def open_again(self) -> None:
        self.stores.pop().close()
        self.stores.append(Store.open(self.path, self.disk))

    @rule()
    def account(self) -> None:
        used: dict[int, int] = {}
        for path in [self.path, *self.path.rglob("*")]:
            status = path.lstat()
            used[status.st_ino] = status.st_blocks * 512
        found = usage(self.store)
        assert found.everything == sum(used.values())
        assert found.total.on_disk == sum(cost.amortised for cost in found.layouts)

    @invariant()
    def holds_what_was_put(self) -> None:
        expected = {str(name.path): str(image.root.digest) for name, image in self.model.items()}
        assert images(self.path) == expected
        store = self.store
        assert [str(name) for name in store.names()] == sorted(
            expected, key=lambda name: name.split("/")
        )
        for reference, image in self.model.items():
            layout = store.find(str(reference))
            [root] = layout.index().manifests
            assert root == image.root
            assert {digest for digest, _ in layout.linked()} >= present(image).keys()
            self.is_whole(self.path / "layouts" / reference.path, image)

    @invariant()
    def leaves_alone_what_is_not_its_own(self) -> None:
        for path, image in self.outside.items():
            self.is_whole(path, image)

    def is_whole(self, layout: Path, image: MinimalImage) -> None:
        for digest, content in present(image).items():
            file = layout / "blobs" / digest.algorithm / digest.encoded
            assert file.read_bytes() == content

    @invariant()
    def keeps_its_promises(self) -> None:
        assert violations(self.path, sparse=True) == []
        assert strays(self.path) == []

    def teardown(self) -> None:
        for owner, _ in self.owners:
            owner.close()
        for store in self.stores:
            store.close()
        self.directory.cleanup()


TestDictionary = Dictionary.TestCase
TestDictionary.settings = settings(max_examples=EXAMPLES, stateful_step_count=25)
