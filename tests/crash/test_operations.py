"""What every operation leaves when the power or a call of the disk fails at any point."""

import errno
import inspect
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import pytest

from ocistow.oci.digest import Digest
from ocistow.oci.errors import NotFound
from ocistow.oci.image_layout import MARKER_CONTENT
from ocistow.oci.manifest import Index
from ocistow.oci.reference import Reference
from ocistow.store.blobs import BlobStore
from ocistow.store.collection.collector import Collector
from ocistow.store.collection.retention import Rule, drop, outdated
from ocistow.store.disk import Disk
from ocistow.store.remotes import RepositoryName
from ocistow.store.store import Store
from ocistow.testing.descriptors import open_files
from ocistow.testing.disk import FailingDisk, QuickDisk
from ocistow.testing.forgetful import ForgetfulDisk
from ocistow.testing.invariants import images, index_violations, pool, strays, violations
from ocistow.testing.minimal import MinimalImage, minimal_image, minimal_index

A = minimal_image("a")
B = minimal_image("b", ["two", "three"])
BOTH = minimal_index(A, B)
ONE = Reference.parse("example.com/app:1")
TWO = Reference.parse("example.com/app:2")
CONTENT = b"content"


@dataclass(frozen=True)
class View:
    """What somebody may rely on: the names and their images, and blobs in the pool."""

    images: dict[str, str] = field(default_factory=dict[str, str])
    pool: frozenset[str] = frozenset()
    created: bool = True
    gone: frozenset[str] = frozenset()  # paths of files that must not be there
    remotes: frozenset[str] = frozenset()
    sparse: bool = False  # layers may be absent


@dataclass(frozen=True)
class Operation:
    """Something that changes a store, and what was and will be promised about it."""

    name: str
    prepare: Callable[[Path], None]
    run: Callable[[Path, Disk], None]
    before: View
    after: View
    max_links: int = 65_000
    unsynced: str = ""  # pattern of files that somebody wrote and did not sync

    @property
    def meanwhile(self) -> tuple[View, View]:
        return self.before, replace(self.after, gone=frozenset())

    def set_up(self, disk: ForgetfulDisk, root: Path) -> None:
        disk.max_links = self.max_links
        if self.unsynced:
            for file in (root / "below" / "store").glob(self.unsynced):
                disk.distrust(file)

    def __str__(self) -> str:
        return self.name


def nothing(path: Path) -> None:
    path.mkdir()


def half_created(path: Path) -> None:
    (path / "below" / "store" / "blobs").mkdir(parents=True)


def created(path: Path) -> None:
    path.mkdir()
    Store.create(path / "below" / "store", QuickDisk()).close()


def with_blobs(path: Path) -> None:
    created(path)
    with Store.open(path / "below" / "store", QuickDisk()) as store:
        BOTH.add_to(store.blobs)


def with_image(path: Path) -> None:
    with_blobs(path)
    with Store.open(path / "below" / "store", QuickDisk()) as store:
        store.put(ONE, A.root)


def with_images(path: Path) -> None:
    with_image(path)
    with Store.open(path / "below" / "store", QuickDisk()) as store:
        store.put(TWO, B.root)


def with_other_files(path: Path) -> None:
    """The layout's blobs are other files than the pool's, as after another copy was begun."""
    with_image(path)
    for blob in (path / "below" / "store" / "blobs" / "sha256").iterdir():
        copy = path / "copy"
        shutil.copyfile(blob, copy)
        copy.rename(blob)


def without_pool(path: Path) -> None:
    with_image(path)
    for blob in (path / "below" / "store" / "blobs" / "sha256").iterdir():
        blob.unlink()


def in_progress(prepare: Callable[[Path], None]) -> Callable[[Path], None]:
    """Prepare a layout whose blobs somebody wrote, but not yet its index."""

    def unfinished(path: Path) -> None:
        prepare(path)
        (path / "below" / "store" / "layouts" / ONE.path / "index.json").unlink()

    return unfinished


def with_a_stranger(path: Path) -> None:
    with_image(path)
    (path / "below" / "store" / "layouts" / ONE.path / "notes").touch()


def create(path: Path, disk: Disk) -> None:
    Store.create(path, disk).close()


def add(path: Path, disk: Disk) -> None:
    with BlobStore(path / "blobs", disk) as blobs:
        blobs.add([CONTENT[:3], CONTENT[3:]])
        blobs.sync()


def add_a_copy(path: Path, disk: Disk) -> None:
    """Put a blob together from what was written and what is copied in the kernel."""
    with BlobStore(path / "blobs", disk) as blobs, blobs.ingest(behind=True) as ingest:
        ingest.write(CONTENT[:3])
        with (path.parent / "source").open("w+b") as source:
            source.write(CONTENT)
            source.flush()
            while ingest.copy(source.fileno(), ingest.size, ingest.size, 2):
                pass
        ingest.commit()
        blobs.sync()


def put(reference: Reference, image: MinimalImage) -> Callable[[Path, Disk], None]:
    def run(path: Path, disk: Disk) -> None:
        with Store.open(path, disk) as store:
            store.put(reference, image.root)

    return run


def take_in(path: Path, disk: Disk) -> None:
    with Store.open(path, disk) as store:
        A.add_to(store.blobs)
        store.put(ONE, A.root)


def remove(path: Path, disk: Disk) -> None:
    with Store.open(path, disk) as store:
        store.layout(ONE.path).remove()


def with_garbage(path: Path) -> None:
    with_image(path)
    with Store.open(path / "below" / "store", QuickDisk()) as store:
        store.put(ONE, B.root)


def with_a_remote(path: Path) -> None:
    created(path)
    with Store.open(path / "below" / "store", QuickDisk()) as store:
        store.remotes.add("near", RepositoryName("example.com", "a"))


def add_remote(path: Path, disk: Disk) -> None:
    with Store.open(path, disk) as store:
        store.remotes.add("far", RepositoryName("example.com", "b"))


def collect(path: Path, disk: Disk) -> None:
    with Store.open(path, disk) as store:
        Collector(store, grace=-1).collect()


def collect_old_names(path: Path, disk: Disk) -> None:
    """What `gc --older-than` does."""
    with Store.open(path, disk) as store:
        with suppress(NotFound):  # the name went before
            drop(store, outdated(store, Rule(older_than=-1), [str(ONE)]))
        Collector(store, grace=-1).collect()


def evict(path: Path, disk: Disk) -> None:
    with Store.open(path, disk) as store:
        collector = Collector(store, grace=-1)
        collector.evict(collector.evictable())


def collect_after_a_death(path: Path, disk: Disk) -> None:
    """Whoever removed the image, died before the removal was sure to survive."""
    directory = os.open(path / "layouts" / ONE.path, os.O_RDONLY)
    try:
        disk.unlink(directory, "index.json")
    finally:
        os.close(directory)
    collect(path, disk)


def show_a_part(path: Path, disk: Disk) -> None:
    with Store.open(path, disk) as store:
        store.below(PurePosixPath("example.com", "other"), create=True).close()


def digests(image: MinimalImage) -> frozenset[str]:
    return frozenset(map(str, image.blobs))


def layers(image: MinimalImage) -> frozenset[str]:
    return frozenset(str(d) for d, content in image.blobs.items() if content.startswith(b"layer"))


def named(**names: MinimalImage) -> dict[str, str]:
    return {f"example.com/app/{tag[1:]}": str(image.root.digest) for tag, image in names.items()}


EMPTY = View()
BLOBS = View(pool=digests(BOTH))
IMAGE = View(named(_1=A), digests(BOTH))
ADDED = str(Digest.of(CONTENT))
TAGGED = View(named(_1=A, _2=A), digests(BOTH))
REMOVED = View(
    pool=digests(BOTH),
    gone=frozenset({f"layouts/{ONE.path}/oci-layout", f"layouts/{ONE.path}/blobs"}),
)
OWN_FILES = f"layouts/{ONE.path}/blobs/sha256/*"
OPERATIONS = [
    Operation("create", nothing, create, View(created=False), EMPTY),
    Operation("create again", half_created, create, View(created=False), EMPTY),
    Operation("add the first blob", created, add, EMPTY, View(pool=frozenset({ADDED}))),
    Operation("add a blob", with_blobs, add, BLOBS, View(pool=digests(BOTH) | {ADDED})),
    Operation("add a copy", with_blobs, add_a_copy, BLOBS, View(pool=digests(BOTH) | {ADDED})),
    Operation("take an image in", created, take_in, EMPTY, View(named(_1=A), digests(A))),
    Operation("put", with_blobs, put(ONE, BOTH), BLOBS, View(named(_1=BOTH), digests(BOTH))),
    Operation("replace", with_image, put(ONE, B), IMAGE, View(named(_1=B), digests(BOTH))),
    Operation("put again", with_other_files, put(ONE, A), IMAGE, IMAGE),
    Operation("tag", with_image, put(TWO, A), IMAGE, TAGGED),
    Operation("tag, few links", with_image, put(TWO, A), IMAGE, TAGGED, max_links=2),
    Operation("put again, no links", with_other_files, put(ONE, A), IMAGE, IMAGE, max_links=1),
    Operation(
        "adopt copies", in_progress(with_other_files), put(ONE, A), BLOBS, IMAGE, 1, OWN_FILES
    ),
    Operation(
        "adopt files",
        in_progress(without_pool),
        put(ONE, A),
        View(),
        View(named(_1=A)),
        unsynced=OWN_FILES,
    ),
    Operation(
        "remove",
        with_images,
        remove,
        View(named(_1=A, _2=B), digests(BOTH)),
        replace(REMOVED, images=named(_2=B)),
    ),
    Operation("show a part", with_image, show_a_part, IMAGE, IMAGE),
    Operation("remove the last", with_image, remove, IMAGE, REMOVED),
    Operation("remove all but", with_a_stranger, remove, IMAGE, REMOVED),
    Operation(
        "collect",
        with_garbage,
        collect,
        View(named(_1=B), digests(BOTH)),
        View(named(_1=B), digests(B)),
    ),
    Operation("collect after a death", with_image, collect_after_a_death, IMAGE, EMPTY),
    Operation(
        "collect old names",
        with_images,
        collect_old_names,
        View(named(_1=A, _2=B), digests(BOTH)),
        View(named(_2=B), digests(B)),
    ),
    Operation(
        "evict",
        with_image,
        evict,
        IMAGE,
        View(named(_1=A), digests(A) - layers(A), sparse=True),
    ),
    Operation(
        "add a remote",
        with_a_remote,
        add_remote,
        View(remotes=frozenset({"near"})),
        View(remotes=frozenset({"near", "far"})),
    ),
]

each_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=str)


def unlike(store: Path, *allowed: View) -> list[str]:
    """Return how a store looks unless it looks like one of the views."""
    is_created = (store / "ocistow.json").exists()
    seen = View(images(store), frozenset(pool(store)), is_created, remotes=remotes(store))
    for view in allowed:
        if (
            seen.images == view.images
            and seen.pool >= view.pool
            and seen.created >= view.created
            and seen.remotes == view.remotes
            and not any((store / path).exists() for path in view.gone)
        ):
            return []
    return [f"looks like {seen}"]


def remotes(store: Path) -> frozenset[str]:
    file = store / "remotes.json"
    if not file.exists():
        return frozenset()
    try:
        return frozenset(remote["name"] for remote in json.loads(file.read_bytes())["remotes"])
    except ValueError:
        return frozenset({"a damaged file"})


def wrong_states(operation: Operation, disk: ForgetfulDisk, under: Path) -> Iterator[str]:
    """Yield what is wrong with any state that power loss could leave, and when."""
    yield from wrong_in_the_end(operation.after, disk, under / "end")
    check = index_violations if operation.unsynced else violations
    sparse = operation.after.sparse
    for number, state in disk.states(under / "middle"):
        store = state / "below" / "store"
        for wrong in check(store, sparse=sparse) or unlike(store, *operation.meanwhile):
            yield f"after {disk.calls[number]} ({number}): {wrong}"


def wrong_in_the_end(after: View, disk: ForgetfulDisk, under: Path) -> Iterator[str]:
    for _, state in disk.states(under, first=len(disk.calls) - 1):
        store = state / "below" / "store"
        for wrong in violations(store, sparse=after.sparse) or unlike(store, after):
            yield f"in the end: {wrong}"


@each_operation
def test_no_power_loss_breaks_a_promise(operation: Operation, scratch: Path) -> None:
    root = scratch / "now"
    operation.prepare(root)
    disk = ForgetfulDisk(root)
    operation.set_up(disk, root)
    operation.run(root / "below" / "store", disk)
    assert unlike(root / "below" / "store", operation.after) == []
    assert list(wrong_states(operation, disk, scratch / "after")) == []


class FailingThenForgetful(ForgetfulDisk):
    """A disk whose call number `at` fails, and that then goes on."""

    left = -1

    def about_to(self, call: str) -> None:
        self.left -= 1
        if self.left == -1:
            raise OSError(errno.EIO, f"{call} failed")


def test_no_power_loss_leaves_half_of_what_a_writer_begins_with(scratch: Path) -> None:
    """go-containerregistry's marker and empty index: whole or not there, and no more is synced."""
    root = scratch / "now"
    with_blobs(root)
    (root / "below" / "store" / "layouts" / "app").mkdir()
    disk = ForgetfulDisk(root)
    with Store.open(root / "below" / "store", disk) as store:
        layout = store.layout(PurePosixPath("app"))
        layout.mark(MARKER_CONTENT)
        layout.commit(Index.of([]), existing=True)
        assert disk.calls.count("sync") == 3
        layout.commit(Index.of([A.root]), existing=True)
    found: set[str] = set()
    for number, state in disk.states(scratch / "after"):
        assert violations(state / "below" / "store") == [], disk.calls[number]
        for marker in (state / "below" / "store").rglob("oci-layout"):
            assert marker.read_bytes() == MARKER_CONTENT
        for index in (state / "below" / "store").rglob("index.json"):
            found.add(str(len(Index.parse(index.read_bytes(), "index").manifests)))
    assert found == {"0", "1"}


def test_untagging_all_survives_power_loss(scratch: Path) -> None:
    root = scratch / "now"
    with_image(root)
    disk = ForgetfulDisk(root)
    with Store.open(root / "below" / "store", disk) as store:
        store.layout(PurePosixPath(ONE.path)).commit(Index.of([]), existing=True)
    for _, state in disk.states(scratch / "after", first=len(disk.calls) - 1):
        (index,) = (state / "below" / "store").rglob("index.json")
        assert Index.parse(index.read_bytes(), "index").manifests == ()


@each_operation
def test_what_was_interrupted_and_done_again_survives(operation: Operation, scratch: Path) -> None:
    at = -1
    for at in itertools.count():
        root = scratch / f"now-{at}"
        operation.prepare(root)
        disk = FailingThenForgetful(root)
        operation.set_up(disk, root)
        disk.left = at
        try:
            operation.run(root / "below" / "store", disk)
        except OSError:
            after = again(operation, root / "below" / "store", disk)
        else:
            break
        assert list(wrong_in_the_end(after, disk, scratch / f"{at}")) == []
        shutil.rmtree(root)
    assert at >= 3


def again(operation: Operation, store: Path, disk: Disk) -> View:
    """Do what failed once more and return what is promised then."""
    try:
        operation.run(store, disk)
    except NotFound:  # a removal may have gone so far that there is no layout any more
        assert operation.run is remove
        return replace(operation.after, gone=frozenset())
    return operation.after


@each_operation
@pytest.mark.parametrize(
    "code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EMLINK], ids=errno.errorcode.get
)
def test_every_failing_call_leaves_the_store_whole(
    operation: Operation, code: int, scratch: Path
) -> None:
    at = -1
    for at in itertools.count():
        store = scratch / f"{at}" / "below" / "store"
        operation.prepare(scratch / f"{at}")
        disk = FailingDisk(at, code)
        disk.max_links = operation.max_links
        files = open_files()
        failure = failure_of(operation, store, disk)
        if disk.failed is None:
            break
        assert failure == code or (failure is None and code == errno.EMLINK)
        assert open_files() <= files
        assert violations(store, sparse=operation.after.sparse) == []
        assert unlike(store, *operation.meanwhile) == []
        assert strays(store) == []
        after = again(operation, store, QuickDisk())
        assert violations(store, sparse=operation.after.sparse) == []
        assert unlike(store, after) == []
        shutil.rmtree(scratch / f"{at}")
    assert at >= 3


def failure_of(operation: Operation, store: Path, disk: FailingDisk) -> int | None:
    """Return the error that an operation ends with; a file with too many links is got over."""
    try:
        operation.run(store, disk)
    except OSError as error:
        return error.errno
    return None


class Careless(ForgetfulDisk):
    """A disk that skips one sync, as if the line that asks for it were not there."""

    def __init__(self, root: Path, skipped: int) -> None:
        super().__init__(root)
        self._left = skipped
        self.skipped = ""

    def sync(self, file: int) -> None:
        self._left -= 1
        if self._left == -1:
            caller = inspect.stack(0)[1]
            self.skipped = f"{caller.filename}:{caller.lineno}"
        else:
            super().sync(file)


def test_every_sync_is_needed(scratch: Path) -> None:
    """The line of every sync, when skipped, breaks a promise of at least one operation."""
    needed: set[str] = set()
    idle: set[str] = set()
    for operation in OPERATIONS:
        for number in itertools.count():
            root, states = scratch / "now", scratch / "after"
            operation.prepare(root)
            disk = Careless(root, number)
            operation.set_up(disk, root)
            operation.run(root / "below" / "store", disk)
            shutil.rmtree(root)
            if not disk.skipped:
                break
            if disk.skipped not in needed:
                wrong = wrong_states(operation, disk, states)
                (idle if next(wrong, None) is None else needed).add(disk.skipped)
                shutil.rmtree(states, ignore_errors=True)
    assert idle - needed == set()
    assert len(needed) >= 9
