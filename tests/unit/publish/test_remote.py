"""Filling from an in-process registry that may lie, be slow or be gone."""

import base64
import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ocistow.oci.descriptor import OCI_LAYER_GZIP, Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.errors import (
    InvalidContent,
    NotFound,
    OcistowError,
    RegistryError,
    RegistryUnavailable,
)
from ocistow.oci.reference import Reference
from ocistow.publish.access import Access
from ocistow.publish.copy import Copied, copy
from ocistow.publish.layout import LayoutSource, StoreSink
from ocistow.publish.remote import (
    PAUSE,
    Filler,
    LazySink,
    LazySource,
    evict,
    fill_layout,
    for_remotes,
    store_source,
)
from ocistow.publish.transports import open_source
from ocistow.store.collection.collector import GRACE, Collector
from ocistow.store.remotes import RepositoryName
from ocistow.store.store import Store
from ocistow.testing.faults import (
    Action,
    Drop,
    Endless,
    Fault,
    Flip,
    Hang,
    Status,
    Surplus,
    Truncate,
)
from ocistow.testing.images import GeneratedImage
from ocistow.testing.invariants import violations
from ocistow.testing.registry import Registry
from ocistow.testing.tokens import ANYBODY, TokenServer

from .conftest import NAME, access_for, assert_sound

ACCESS = Access()
CLOSING = ExitStack()  # after each test


@pytest.fixture(autouse=True)
def closing() -> Iterator[None]:
    with CLOSING:
        yield


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def origin(registry: Registry, image: GeneratedImage) -> RepositoryName:
    registry.repositories.load(image.path, "app")
    return RepositoryName(registry.host, "app")


@pytest.fixture
def lazy(store: Store, registry: Registry, origin: RepositoryName) -> Iterator[Copied]:
    """The image in the store, without its layers; afterwards the store must be sound."""
    yield add_lazily(store, registry, NAME)
    assert_sound(store)
    assert violations(store.path, sparse=True) == []


def add_lazily(store: Store, registry: Registry, name: Reference) -> Copied:
    text = f"docker://{registry.host}/app:latest"
    with open_source(text, store, access=ACCESS) as source:
        sink = LazySink(store, name, RepositoryName(registry.host, "app"))
        return copy(LazySource(source), sink)


def filler(store: Store, clock: Clock | None = None, access: Access = ACCESS) -> Filler:
    return CLOSING.enter_context(Filler(store, access, clock or Clock()))


def gets(registry: Registry, digest: Digest) -> int:
    wanted = f"/blobs/{digest}"
    return sum(r.method == "GET" and r.path.endswith(wanted) for r in registry.requests)


def size_of(image: GeneratedImage, layer: Digest) -> int:
    return image.blob(layer).stat().st_size


def fault(registry: Registry, digest: Digest, action: Action, times: int | None = None) -> None:
    registry.faults.append(Fault("GET", f"/blobs/{digest}", action, times))


def test_a_lazy_image_costs_two_requests(
    store: Store, registry: Registry, image: GeneratedImage, lazy: Copied
) -> None:
    assert (lazy.sent, lazy.absent) == (2, 3)
    assert [r.method for r in registry.requests] == ["GET", "GET"]
    assert set(store.blobs) == {image.manifest, image.config}
    assert store.remotes.places(image.layers[0]) == (RepositoryName(registry.host, "app"),)


def test_layers_come_when_they_are_read_and_stay(
    store: Store, registry: Registry, image: GeneratedImage, lazy: Copied, tmp_path: Path
) -> None:
    source = CLOSING.enter_context(store_source(store, store.layout(NAME.path), access=ACCESS))
    with Store.create(tmp_path / "other") as other:
        assert copy(source, StoreSink(other, NAME)).absent == 0
        assert set(other.blobs) == {image.manifest, image.config, *image.layers}
    assert set(store.blobs) == {image.manifest, image.config, *image.layers}
    assert {digest for digest, _ in store.layout(NAME.path).linked()} == set(store.blobs)
    assert violations(store.path) == []
    registry.requests.clear()
    copy(source, StoreSink(store, Reference.parse("again")))
    assert registry.requests == []


def test_an_origin_survives_the_database(store: Store, image: GeneratedImage, lazy: Copied) -> None:
    for file in store.path.glob("index.*"):
        file.unlink()
    with Store.open(store.path) as again:
        filler(again).fill(image.layers[0], size_of(image, image.layers[0]))
        assert image.layers[0] in again.blobs


def test_what_the_store_has_is_never_asked_for(
    store: Store, registry: Registry, image: GeneratedImage, origin: RepositoryName
) -> None:
    copy(LayoutSource(image.path), StoreSink(store, NAME))
    assert add_lazily(store, registry, Reference.parse("lazy")).absent == 0
    assert [r.method for r in registry.requests] == ["GET"]
    assert store.remotes.places(image.layers[0]) == ()


def test_without_remotes_nothing_touches_the_network(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("somebody connects")

    monkeypatch.setattr("socket.socket.connect", refuse)
    absent = Digest.of(b"absent")
    with pytest.raises(NotFound) as caught:
        filler(store).fill(absent, 1)
    assert caught.value.name == absent


def test_a_blob_is_fetched_once_however_many_want_it(
    store: Store, registry: Registry, image: GeneratedImage, lazy: Copied
) -> None:
    """Two fillers stand for two processes: they share nothing but the store."""
    layer, errors = image.layers[0], list[BaseException]()
    fillers = [filler(store), filler(store)]
    barrier = threading.Barrier(8)

    def want(number: int) -> None:
        barrier.wait()
        try:
            fillers[number % 2].fill(layer, size_of(image, layer))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=want, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert gets(registry, layer) == 1


@pytest.mark.parametrize(
    ("action", "times", "kind"),
    [
        (Flip(10), None, InvalidContent),
        (Surplus(1), None, InvalidContent),
        (Endless(chunked=True), None, InvalidContent),
        (Truncate(100), None, RegistryUnavailable),
        (Drop(100), None, RegistryUnavailable),
        (Status(403), None, RegistryError),
        (Status(500), None, RegistryUnavailable),
        (Status(404), None, NotFound),
        (Hang(), None, RegistryUnavailable),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_remote_that_fails_is_one_error_and_names_nothing(
    store: Store,
    registry: Registry,
    image: GeneratedImage,
    lazy: Copied,
    action: Action,
    times: int | None,
    kind: type[OcistowError],
) -> None:
    layer = image.layers[0]
    fault(registry, layer, action, times)
    with pytest.raises(kind, match=str(layer)) as caught:
        filler(store, access=access_for(action)).fill(layer, size_of(image, layer))
    assert type(caught.value) is kind
    if kind is not NotFound:
        assert f"{registry.host}/app" in str(caught.value)
    assert layer not in store.blobs
    registry.faults.clear()
    filler(store).fill(layer, size_of(image, layer))
    assert layer in store.blobs


def test_a_connection_that_breaks_once_is_taken_up(
    store: Store, registry: Registry, image: GeneratedImage, lazy: Copied
) -> None:
    fault(registry, image.layers[0], Drop(100), 1)
    filler(store).fill(image.layers[0], size_of(image, image.layers[0]))
    assert image.layers[0] in store.blobs


def test_a_wrong_size_is_refused(
    store: Store, registry: Registry, image: GeneratedImage, lazy: Copied
) -> None:
    with pytest.raises(InvalidContent, match="the descriptor announces 7"):
        filler(store).fill(image.layers[0], 7)
    assert image.layers[0] not in store.blobs


def test_the_next_remote_is_asked(
    store: Store, registry: Registry, image: GeneratedImage, lazy: Copied
) -> None:
    registry.repositories.load(image.path, "mirror")
    store.remotes.add("empty", RepositoryName(registry.host, "empty"))
    store.remotes.add("gone", RepositoryName("127.0.0.1:1", "app"))
    store.remotes.add("liar", RepositoryName(registry.host, "mirror"))
    layer = image.layers[1]
    registry.faults.append(Fault("GET", f"/mirror/blobs/{layer}", Flip(1), None))
    filler(store).fill(layer, size_of(image, layer))
    asked = [r.path.split("/")[2] for r in registry.requests if r.path.endswith(str(layer))]
    assert asked == ["empty", "mirror", "app"]


def test_who_cannot_be_asked_counts_more_than_who_lies_or_lacks(
    store: Store, registry: Registry, image: GeneratedImage, lazy: Copied
) -> None:
    layer = image.layers[0]
    fault(registry, layer, Flip(1))
    store.remotes.add("gone", RepositoryName("127.0.0.1:1", "app"))
    with pytest.raises(RegistryUnavailable, match=r"127\.0\.0\.1:1/app"):
        filler(store).fill(layer, size_of(image, layer))


def test_a_remote_that_is_gone_is_not_asked_again_at_once(
    store: Store, registry: Registry, image: GeneratedImage, lazy: Copied, clock: Clock
) -> None:
    fill, first, second = filler(store, clock), image.layers[0], image.layers[1]
    registry.faults.append(Fault("GET", "/blobs/", Status(503), None))
    tries: list[int] = []
    for layer in (first, first, second):
        with pytest.raises(RegistryUnavailable, match=f"{layer} from"):
            fill.fill(layer, size_of(image, layer))
        tries.append(len(registry.requests))
    assert tries == [tries[0]] * 3
    registry.faults.clear()
    clock.now += PAUSE + 0.1
    for layer in (first, second):
        fill.fill(layer, size_of(image, layer))


def test_a_liar_is_asked_for_other_blobs(
    store: Store, registry: Registry, image: GeneratedImage, lazy: Copied, clock: Clock
) -> None:
    fill, first, second = filler(store, clock), image.layers[0], image.layers[1]
    fault(registry, first, Flip(1))
    for _ in range(3):
        with pytest.raises(InvalidContent, match="has no good"):
            fill.fill(first, size_of(image, first))
    assert gets(registry, first) == 1
    fill.fill(second, size_of(image, second))


def test_one_token_is_enough_for_all_layers(
    store: Store, registry: Registry, origin: RepositoryName, image: GeneratedImage
) -> None:
    with TokenServer() as tokens:
        tokens.rights = [(ANYBODY, "repository:app:pull")]
        registry.guard = tokens.guard
        store.remotes.add("tier", origin)
        with Filler(store, ACCESS) as filling:
            for layer in image.layers:
                filling.fill(layer, size_of(image, layer))
        assert len(tokens.requests) == 1
        assert len(registry.requests) == len(image.layers) + 1


def test_an_image_stays_whole_when_its_copy_fails(
    store: Store, registry: Registry, image: GeneratedImage, lazy: Copied, tmp_path: Path
) -> None:
    registry.faults.append(Fault("GET", "/blobs/", Status(403), None))
    source = CLOSING.enter_context(store_source(store, store.layout(NAME.path), access=ACCESS))
    with (
        Store.create(tmp_path / "other") as other,
        pytest.raises(RegistryError, match="HTTP 403"),
    ):
        copy(source, StoreSink(other, NAME))


def test_a_removed_image_can_still_be_read_by_who_began(
    store: Store, image: GeneratedImage, lazy: Copied
) -> None:
    layout = store.layout(NAME.path)
    source = CLOSING.enter_context(store_source(store, layout, access=ACCESS))
    layout.remove()
    layer = Descriptor(OCI_LAYER_GZIP, image.layers[0], size_of(image, image.layers[0]))
    with source.open(layer) as blob:
        assert Digest.of(b"".join(blob)) == image.layers[0]
    assert not (store.layouts / NAME.path).exists()


def test_a_layout_gets_what_the_pool_got_otherwise(
    store: Store, registry: Registry, image: GeneratedImage, lazy: Copied
) -> None:
    copy(LayoutSource(image.path), StoreSink(store, Reference.parse("other")))
    registry.requests.clear()
    source = CLOSING.enter_context(store_source(store, store.layout(NAME.path), access=ACCESS))
    layer = Descriptor(OCI_LAYER_GZIP, image.layers[0], size_of(image, image.layers[0]))
    source.open(layer).close()
    assert store.layout(NAME.path).own(image.layers[0])
    assert store.layout(NAME.path).own(image.layers[1]) is None
    assert registry.requests == []


def test_credentials_of_a_destination_are_not_sent_to_remotes(tmp_path: Path) -> None:
    authfile = tmp_path / "auth.json"
    given = Access(("user", "password"), "token", authfile, plain_http=True, tls_verify=False)
    assert for_remotes(given) == Access(authfile=authfile)


def test_what_happens_is_said(
    store: Store,
    image: GeneratedImage,
    lazy: Copied,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "ocistow.publish.remote")
    layer = image.layers[0]
    filler(store).fill(layer, size_of(image, layer))
    assert f"fetched {layer} from 127.0.0.1:" in caplog.text


@pytest.fixture
def kept(store: Store, registry: Registry, image: GeneratedImage, origin: RepositoryName) -> Store:
    """A store that has the image, whole, and a remote that has it too."""
    copy(LayoutSource(image.path), StoreSink(store, NAME))
    store.remotes.add("tier", origin)
    return store


def collector(store: Store, *, after: float = 2 * GRACE) -> Collector:
    return Collector(store, clock=lambda: time.time() + after)


def test_layers_that_a_remote_has_are_evicted_and_come_back(
    kept: Store, registry: Registry, image: GeneratedImage, tmp_path: Path
) -> None:
    sizes = sum(kept.blobs.stat(layer).st_blocks * 512 for layer in image.layers)
    assert evict(kept, collector(kept), ACCESS, dry_run=True).freed == sizes
    assert set(image.layers) <= set(kept.blobs)
    evicted = evict(kept, collector(kept), ACCESS)
    assert (evicted.blobs, evicted.links, evicted.freed) == (3, 3, sizes)
    assert set(kept.blobs) == {image.manifest, image.config}
    assert {r.method for r in registry.requests} == {"HEAD"}
    assert violations(kept.path, sparse=True) == []
    with Store.create(tmp_path / "other") as other:
        source = CLOSING.enter_context(store_source(kept, kept.layout(NAME.path), access=ACCESS))
        assert copy(source, StoreSink(other, NAME)).absent == 0
    assert violations(kept.path) == []


def test_what_no_remote_has_in_full_stays(
    kept: Store, registry: Registry, image: GeneratedImage
) -> None:
    absent, short, whole = image.layers
    registry.faults.append(Fault("HEAD", str(absent), Status(404), None))
    registry.faults.append(Fault("HEAD", str(short), Surplus(1), None))
    assert evict(kept, collector(kept), ACCESS).blobs == 1
    assert set(kept.blobs) == {image.manifest, image.config, absent, short}
    assert whole not in kept.blobs


def test_a_remote_that_gives_no_answer_evicts_nothing(
    kept: Store, registry: Registry, image: GeneratedImage
) -> None:
    registry.faults.append(Fault("HEAD", str(image.layers[2]), Status(503), None))
    with pytest.raises(RegistryUnavailable):
        evict(kept, collector(kept), ACCESS)
    assert set(image.layers) <= set(kept.blobs)


def test_what_just_came_or_is_leased_is_not_evicted(
    kept: Store, registry: Registry, image: GeneratedImage
) -> None:
    assert evict(kept, collector(kept, after=0), ACCESS).blobs == 0
    assert registry.requests == []
    with kept.leases.keeping(image.layers[:2]):
        evicted = evict(kept, collector(kept), ACCESS)
    assert (evicted.blobs, evicted.leased) == (1, 2)


def test_an_origin_is_no_reason_to_evict(
    store: Store, registry: Registry, image: GeneratedImage, origin: RepositoryName
) -> None:
    copy(LayoutSource(image.path), StoreSink(store, NAME))
    store.remotes.note_origin(origin, image.layers)
    assert evict(store, collector(store), ACCESS).blobs == 0
    assert registry.requests == []


def test_a_remote_that_wants_credentials_gets_those_of_the_authfile(
    store: Store, image: GeneratedImage, tmp_path: Path
) -> None:
    authfile, layer = tmp_path / "auth.json", image.layers[0]
    with Registry(credentials=("user", "secret")) as registry:
        registry.repositories.load(image.path, "app")
        pair = base64.b64encode(b"user:secret").decode()
        authfile.write_text(json.dumps({"auths": {registry.host: {"auth": pair}}}))
        store.remotes.add("tier", RepositoryName(registry.host, "app"))
        given = Access(credentials=("somebody", "else"), authfile=authfile)
        with Filler(store, given) as filling:
            filling.fill(layer, size_of(image, layer))
    assert layer in store.blobs
    assert "secret" not in (store.path / "remotes.json").read_text()


def test_what_was_fetched_is_not_evicted_before_its_layout_has_it(
    store: Store, image: GeneratedImage, lazy: Copied
) -> None:
    class Evicted(Filler):
        def fill(self, digest: Digest, size: int) -> None:
            super().fill(digest, size)
            collector = Collector(store, grace=0, clock=lambda: time.time() + 10)
            collector.evict([digest])

    layer, layout = image.layers[0], store.layout(NAME.path)
    with Evicted(store, ACCESS) as filling:
        fill_layout(filling, layout, layer, size_of(image, layer))
    assert layout.own(layer) is not None
