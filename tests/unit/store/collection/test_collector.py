import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import pytest

from ocistow.oci.descriptor import OCI_LAYER, Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.errors import InvalidContent
from ocistow.oci.manifest import Index
from ocistow.oci.reference import Reference
from ocistow.store.collection.collector import GRACE, SPARE_GRACE, Collector
from ocistow.store.collection.survey import Survey
from ocistow.store.collection.sweep import BUDGET, Collected, Sweep
from ocistow.store.disk import Disk
from ocistow.store.leases import DURATION
from ocistow.store.lock import Lock
from ocistow.store.remotes import Remotes, RepositoryName, Version
from ocistow.store.store import Store
from ocistow.testing.invariants import violations
from ocistow.testing.minimal import MinimalImage, minimal_image, minimal_index

A = minimal_image("a", ["one", "two"])
B = minimal_image("b", ["two", "three"])
ONE = Reference.parse("example.com/app:1")
TWO = Reference.parse("example.com/app:2")
LATER = 2 * GRACE


@pytest.fixture(autouse=True)
def the_store_stays_whole(store: Store) -> Iterator[None]:
    yield
    assert violations(store.path, sparse=True) == []


def put(store: Store, name: Reference, image: MinimalImage) -> None:
    image.add_to(store.blobs)
    store.put(name, image.root)


def collector(store: Store, after: float = LATER, grace: float = GRACE) -> Collector:
    """Return one that works as if `after` seconds had passed."""
    return Collector(store, grace=grace, clock=lambda: time.time() + after)


def collect(store: Store, after: float = LATER, *, dry_run: bool = False) -> Collected:
    """Collect as if `after` seconds had passed."""
    return collector(store, after).collect(dry_run=dry_run)


def layers(image: MinimalImage) -> list[Digest]:
    return [digest for digest, content in image.blobs.items() if content.startswith(b"layer")]


def test_images_and_what_they_share_stay(store: Store) -> None:
    put(store, ONE, minimal_index(A, B))
    put(store, TWO, B)
    assert collect(store) == Collected()
    store.layout(ONE.path).remove()
    assert collect(store).blobs == 4  # the index, and of A all but the layer that B has
    assert set(store.blobs) == set(B.blobs)


def test_what_nobody_mentions_goes_after_the_grace(store: Store) -> None:
    A.add_to(store.blobs)
    assert collect(store, 0) == Collected(recent=4)
    assert collect(store, GRACE - 10) == Collected(recent=4)
    sizes = sum(store.blobs.stat(digest).st_blocks * 512 for digest in A.blobs)
    dry = collect(store, dry_run=True)
    assert dry == Collected(blobs=4, freed=sizes)
    assert set(store.blobs) == set(A.blobs)
    assert collect(store) == dry
    assert set(store.blobs) == set()
    assert collect(store) == Collected()


def test_no_grace_is_no_grace(store: Store) -> None:
    A.add_to(store.blobs)
    assert collector(store, 1, grace=0).collect().blobs == 4


def test_links_of_a_replaced_image_go_with_the_blobs(store: Store) -> None:
    put(store, ONE, A)
    put(store, ONE, B)
    assert collect(store, 0) == Collected(recent=3)
    found = collect(store)
    assert (found.blobs, found.links) == (3, 3)
    assert found.freed > 0
    assert {digest for digest, _ in store.layout(ONE.path).linked()} == set(B.blobs)
    assert set(store.blobs) == set(B.blobs)


def test_a_useless_link_goes_and_what_another_image_needs_stays(store: Store) -> None:
    put(store, ONE, A)
    put(store, TWO, A)
    put(store, ONE, B)
    found = collect(store)
    assert (found.blobs, found.links, found.freed) == (0, 3, 0)
    assert set(store.blobs) == {*A.blobs, *B.blobs}


def test_an_index_that_is_empty_for_a_moment_costs_nothing(store: Store) -> None:
    put(store, ONE, A)
    for file in (store.path / "blobs").rglob("*"):
        os.utime(file)
    path = store.layouts / ONE.path / "index.json"
    raw = path.read_bytes()
    path.write_bytes(json.dumps({"schemaVersion": 2, "manifests": []}).encode())
    assert collect(store, GRACE / 2) == Collected(recent=4)
    path.write_bytes(raw)
    assert collect(store) == Collected()


def test_a_writer_without_an_index_has_the_grace_after_each_blob(store: Store) -> None:
    first, second = [*A.blobs][:2]
    A.add_to(store.blobs)
    names = store.layouts / ONE.path / "blobs" / "sha256"
    names.mkdir(parents=True)
    os.link(store.path / "blobs/sha256" / first.encoded, names / first.encoded)
    long_ago = time.time() - 10 * GRACE
    for directory in (store.layouts / ONE.path, names.parent, names):
        os.utime(directory, (long_ago, long_ago))
    os.utime(names, (time.time() + GRACE, time.time() + GRACE))  # another blob was just written
    found = collect(store, 1.5 * GRACE)
    assert (names / first.encoded).exists()
    assert first in store.blobs
    assert second not in store.blobs
    assert found.recent == 1
    assert collect(store, 3 * GRACE).links == 1
    assert first not in store.blobs


def test_what_is_leased_stays(store: Store) -> None:
    A.add_to(store.blobs)
    leased = layers(A)[0]
    with store.leases.keeping([leased]):
        dry = collect(store, dry_run=True)
        assert (dry.blobs, dry.leased) == (3, 1)
        found = collect(store)
        assert (found.blobs, found.leased) == (3, 1)
        assert set(store.blobs) == {leased}
    assert collect(store).blobs == 1


def test_who_takes_a_lease_meanwhile_is_heard(store: Store) -> None:
    """The collector has seen garbage; before it removes that, somebody relies on it again."""
    A.add_to(store.blobs)
    owner = store.leases.owner()

    class Interrupted(Collector):
        def _sweep(self) -> Sweep:
            owner.take(A.blobs)
            return super()._sweep()

    with owner:
        assert Interrupted(store, clock=lambda: time.time() + LATER).collect().leased == 4
    assert set(store.blobs) == set(A.blobs)


def test_who_commits_an_index_meanwhile_is_heard(store: Store) -> None:
    A.add_to(store.blobs)

    class Interrupted(Collector):
        def _sweep(self) -> Sweep:
            store.put(ONE, A.root)
            return super()._sweep()

    assert Interrupted(store, clock=lambda: time.time() + LATER).collect().blobs == 0
    assert violations(store.path) == []


def test_who_links_a_blob_meanwhile_is_heard(store: Store) -> None:
    A.add_to(store.blobs)
    digest = layers(A)[0]

    class Interrupted(Collector):
        def _sweep(self) -> Sweep:
            os.link(store.path / "blobs/sha256" / digest.encoded, store.path / "elsewhere")
            return super()._sweep()

    found = Interrupted(store, clock=lambda: time.time() + LATER).collect()
    assert (found.blobs, found.recent) == (3, 1)
    assert set(store.blobs) == {digest}


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"schemaVersion": 2, "manifests": [{"digest": "x"}]}']
)
def test_an_index_that_nobody_understands_stops_everything(store: Store, content: bytes) -> None:
    put(store, ONE, A)
    B.add_to(store.blobs)
    (store.layouts / ONE.path / "index.json").write_bytes(content)
    with pytest.raises(InvalidContent, match="example"):
        collect(store)
    assert set(store.blobs) == {*A.blobs, *B.blobs}
    store.layout(ONE.path).remove()


def test_an_index_without_its_manifest_stops_everything(store: Store) -> None:
    put(store, ONE, A)
    store.blobs.delete(A.root.digest)
    (store.layouts / ONE.path / "blobs/sha256" / A.root.digest.encoded).unlink()
    with pytest.raises(InvalidContent, match=f"example.com/app/1 mentions {A.root.digest}"):
        collect(store)
    assert len(set(store.blobs)) == 3
    store.layout(ONE.path).remove()


def test_what_a_manifest_of_an_unknown_kind_mentions_stays(store: Store) -> None:
    inner = json.dumps({"what": str(layers(A)[0])}).encode()
    document = json.dumps({"blobs": [{"digest": str(Digest.of(inner))}]}).encode()
    A.add_to(store.blobs)
    for content in (inner, document):
        store.blobs.add([content])
    kind = "application/vnd.example.unknown+json"
    root = Descriptor(kind, Digest.of(document), len(document))
    store.layout(PurePosixPath("some/where/else")).commit(Index.of([root]))
    assert collect(store).blobs == 3
    assert set(store.blobs) == {layers(A)[0], Digest.of(inner), Digest.of(document)}


def test_a_sparse_image_is_no_reason_to_stop(store: Store) -> None:
    A.add_to(store.blobs, without=layers(A)[:1])
    store.put(ONE, A.root)
    assert collect(store) == Collected()


def test_a_lazy_image_keeps_its_origin(store: Store) -> None:
    origin = RepositoryName("example.com", "a")
    A.add_to(store.blobs, without=layers(A))
    store.remotes.note_origin(origin, [*layers(A), *layers(B)])
    store.put(ONE, A.root)
    collect(store, 0)
    assert store.remotes.places(layers(B)[1]) == (origin,)
    collect(store)
    assert store.remotes.places(layers(A)[0]) == (origin,)
    assert store.remotes.places(layers(B)[1]) == ()


def test_an_origin_that_was_noted_meanwhile_stays(store: Store) -> None:
    """A lazy image comes when the survey, and the look for what changed, are over."""
    origin = RepositoryName("example.com", "a")
    store.remotes.note_origin(origin, layers(B))
    real = store.remotes.retain

    class Interrupted(Remotes):
        def retain(self, digests: Collection[Digest], version: Version) -> None:
            store.remotes.note_origin(origin, layers(A))
            real(digests, version)

    interrupted = Interrupted(store.path, Disk(), store.lock)
    store.remotes, before = interrupted, store.remotes
    collect(store)
    store.remotes = before
    assert store.remotes.places(layers(A)[0]) == (origin,)
    collect(store)
    assert store.remotes.places(layers(A)[0]) == ()


def test_many_spare_names_go_a_few_at_a_time(store: Store) -> None:
    put(store, ONE, A)
    names = store.layouts / ONE.path / "blobs" / "sha256"
    for number in range(1000):
        (names / f".ocistow-{number}").touch()
    layout = store.layout(ONE.path)
    assert layout.discard_spares(time.time() + 1, 10) == 10
    assert len(os.listdir(names)) == 990 + len(A.blobs)
    collect(store, max(GRACE, SPARE_GRACE) + 1)
    assert len(os.listdir(names)) == len(A.blobs)


def test_what_processes_left_that_died_goes(store: Store) -> None:
    A.add_to(store.blobs)
    spares = [store.path / "blobs/.ocistow-1", store.path / "blobs/sha256/.ocistow-2"]
    for spare in spares:
        spare.write_bytes(b"half")
    Collector(store, grace=0).collect()
    assert all(spare.exists() for spare in spares)
    collect(store, max(GRACE, SPARE_GRACE) + 1)
    assert not any(spare.exists() for spare in spares)


def test_copies_instead_of_links_are_collected_too(store: Store) -> None:
    put(store, ONE, A)
    names = store.layouts / ONE.path / "blobs" / "sha256"
    for file in names.iterdir():  # as where the file system has no hard links
        content = file.read_bytes()
        file.unlink()
        file.write_bytes(content)
    put(store, ONE, B)
    found = collect(store)
    assert (found.blobs, found.links) == (3, 3)
    assert violations(store.path) == []


def test_strangers_are_left_alone(store: Store) -> None:
    strangers = [
        store.path / "blobs/notes",
        store.path / "blobs/sha256/notes",
        store.layouts / "a.io/b/blobs/notes",
        store.layouts / "a.io/b/blobs/sha256/notes",
    ]
    for stranger in strangers:
        stranger.parent.mkdir(parents=True, exist_ok=True)
        stranger.touch()
    by_digest = Reference.parse(f"a.io/b/c@{A.root.digest}")
    put(store, by_digest, A)
    assert collect(store) == Collected()
    for stranger in strangers:
        stranger.unlink()  # it must be there


def test_a_symbolic_link_is_not_followed(store: Store, tmp_path: Path) -> None:
    """What looks like a layout elsewhere is neither a root nor emptied."""
    put(store, ONE, A)
    outside = tmp_path / "outside"
    shutil.copytree(store.layouts / ONE.path, outside)
    (store.layouts / "a.io").mkdir()
    (store.layouts / "a.io" / "b").symlink_to(outside)
    store.layout(ONE.path).remove()
    assert collect(store).blobs == 4
    assert len(list((outside / "blobs/sha256").iterdir())) == 4


def test_only_layers_are_evicted_and_their_images_become_sparse(store: Store) -> None:
    put(store, ONE, A)
    put(store, TWO, minimal_index(A, B))
    later = collector(store)
    evictable = later.evictable()
    assert set(evictable) == {*layers(A), *layers(B)}
    two = layers(A)[1]
    assert later.evict([two], dry_run=True).blobs == 1
    assert two in store.blobs
    found = later.evict([two])
    assert (found.blobs, found.links) == (1, 2)
    assert found.freed > 0
    assert two not in store.blobs
    assert store.layout(ONE.path).own(two) is None
    assert collect(store) == Collected()


def test_what_was_touched_or_leased_or_is_more_than_a_layer_is_not_evicted(store: Store) -> None:
    put(store, ONE, A)
    first, second = layers(A)
    assert Collector(store).evictable() == {}
    assert Collector(store).evict([first]).blobs == 0
    later = collector(store)
    with store.leases.keeping([first]):
        assert later.evict([first, A.root.digest]) == Collected(leased=1)
    assert second in later.evictable()
    artifact = Descriptor(OCI_LAYER, second, len(A.blobs[second]))
    store.layout(TWO.path).commit(Index.of([artifact]))
    assert second not in later.evictable()


def test_an_empty_index_keeps_what_its_layout_has_for_an_hour(store: Store) -> None:
    """The lifecycle begins with one; whatever the grace, and with nobody to take a lease."""
    put(store, ONE, A)
    store.layout(ONE.path).commit(Index.of([]))
    for after, grace in ((0, -1), (0, 0), (DURATION - 60, 0)):
        assert collector(store, after, grace).collect() == Collected(recent=4)
    store.layout(ONE.path).commit(Index.of([A.root]))
    assert violations(store.path) == []
    store.layout(ONE.path).commit(Index.of([]))
    assert collect(store, DURATION + 60).blobs == 4


Interruption = Callable[[Store], None]


def commit(store: Store) -> None:
    store.put(TWO, A.root)


def commit_again(store: Store) -> None:
    """Where the layout has all names already, so that none is made."""
    store.put(ONE, A.root)


def commit_with_copies(store: Store) -> None:
    """As where the pool's files have all links that they can have."""
    names = store.layouts / ONE.path / "blobs" / "sha256"
    for file in names.iterdir():
        content = file.read_bytes()
        file.unlink()
        file.write_bytes(content)
    store.put(ONE, A.root)


def commit_index(store: Store) -> None:
    both = minimal_index(A, B)
    both.add_to(store.blobs)
    store.put(TWO, both.root)


def link_and_unlink(store: Store) -> None:
    """The number of links is what it was; the time is not."""
    for digest in A.blobs:
        os.link(store.blobs.path_of(digest), store.path / "elsewhere")
        (store.path / "elsewhere").unlink()


def renew(store: Store) -> None:
    for digest in A.blobs:
        content = store.blobs.path_of(digest)
        raw = Path(content).read_bytes()
        Path(content).unlink()
        store.blobs.add([raw])


@pytest.mark.parametrize(
    "interruption",
    [commit, commit_again, commit_with_copies, commit_index, link_and_unlink, renew],
)
@pytest.mark.parametrize("point", ["look", "sweep", "settle", "batch"])
def test_whatever_happens_between_two_steps_is_seen(
    store: Store, monkeypatch: pytest.MonkeyPatch, interruption: Interruption, point: str
) -> None:
    """A is useless, with names that a layout kept, until somebody needs it again."""
    put(store, ONE, A)
    put(store, ONE, B)
    done: list[str] = []

    def interrupt() -> None:
        if not done:
            done.append(point)
            interruption(store)

    class Late(Survey):
        def _take_pool(self) -> None:
            super()._take_pool()
            if point == "look":
                interrupt()

    class Interrupted(Collector):
        def _sweep(self) -> Sweep:
            if point == "sweep":
                interrupt()
            return super()._sweep()

    def settle() -> None:
        if point == "settle":
            interrupt()

    held = store.lock.held

    def hold() -> AbstractContextManager[None]:
        if point == "batch":
            interrupt()
        return held()

    monkeypatch.setattr("ocistow.store.collection.collector.Survey", Late)
    monkeypatch.setattr(store.blobs, "settle", settle)
    monkeypatch.setattr(store.lock, "held", hold)
    Interrupted(store, grace=-1).collect()
    assert done == [point]
    monkeypatch.undo()
    assert set(A.blobs) <= set(store.blobs)
    assert violations(store.path) == []


def test_a_directory_that_moves_past_the_look_loses_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, ONE, A)
    above = store.layouts / ONE.path.parent
    aside = store.path / "aside"

    class Moved(Survey):
        def _take_pool(self) -> None:
            super()._take_pool()
            above.rename(aside)  # as if it went to where the look has been already

    with monkeypatch.context() as patch:
        patch.setattr("ocistow.store.collection.collector.Survey", Moved)
        assert Collector(store, grace=-1).collect() == Collected(recent=4)
    aside.rename(above)
    assert set(store.blobs) == set(A.blobs)


def test_names_go_a_few_at_a_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of one blob that many layouts have: nobody waits for all of them."""
    for number in range(5):
        put(store, Reference.parse(f"example.com/app:{number}"), A)
        put(store, Reference.parse(f"example.com/app:{number}"), B)
    pauses: list[float] = []
    ticks = count(0.0, 0.6 * BUDGET)  # two looks at the clock use it up
    monkeypatch.setattr(
        "ocistow.store.collection.sweep.time",
        SimpleNamespace(sleep=pauses.append, monotonic=lambda: next(ticks)),
    )
    found = collect(store)
    assert (found.blobs, found.links) == (3, 15)
    assert len(pauses) > 8
    assert set(store.blobs) == set(B.blobs)


def test_a_large_blob_is_freed_when_the_lock_is(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ocistow.store.collection.sweep._LARGE", 1)
    A.add_to(store.blobs)
    inodes = {store.blobs.stat(digest).st_ino for digest in A.blobs}
    kept: list[int] = []

    class Looking(Sweep):
        def _free(self) -> None:
            with Lock(store.path / "lock", timeout=0.0).held():  # nobody else has it
                pass
            kept.extend(os.fstat(file).st_ino for file in self._large)
            super()._free()
            assert self._large == []

    monkeypatch.setattr("ocistow.store.collection.collector.Sweep", Looking)
    assert collect(store).blobs == 4
    assert set(kept) == inodes


def test_what_killed_writers_left_in_layouts_goes(store: Store) -> None:
    put(store, ONE, A)
    layout = store.layouts / ONE.path
    spares = [layout / name / ".ocistow-1" for name in ("", "blobs", "blobs/sha256")]
    for spare in spares:
        spare.write_bytes(b"half")
    Collector(store, grace=0).collect()
    assert all(spare.exists() for spare in spares)
    collect(store)
    assert not any(spare.exists() for spare in spares)
