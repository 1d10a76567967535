"""What becomes of a copy when one thing goes wrong: it succeeds, or says so in one line.

Whatever happens, nothing gets a name whose content is not the image, and the number of
requests is what the table says.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from ocistow.oci.digest import Digest
from ocistow.oci.errors import OcistowError, RegistryError
from ocistow.oci.reference import Reference
from ocistow.publish.access import Access
from ocistow.publish.copy import copy
from ocistow.publish.distribution.endpoint import Endpoint
from ocistow.publish.distribution.repository import Repository
from ocistow.publish.distribution.retries import TRIES
from ocistow.publish.distribution.transport import MAX_REDIRECTS, Transport
from ocistow.publish.layout import LayoutSource, StoreSink
from ocistow.publish.registry import RegistrySink, RegistrySource
from ocistow.publish.transports import open_sink
from ocistow.store.store import Store
from ocistow.testing.exchange import Request
from ocistow.testing.faults import (
    Action,
    Cut,
    Drip,
    Drop,
    Endless,
    EndlessHead,
    Fault,
    Flip,
    Hang,
    LoseAnswer,
    Status,
    Surplus,
    Truncate,
    WrongDigest,
)
from ocistow.testing.images import GeneratedImage, image_layout
from ocistow.testing.registry import Registry

from .conftest import NAME, access_for, assert_sound

APP = Reference.parse("registry.test/app:1")
OK = ""  # how a copy ends that succeeds
PUBLISH = ["GET", "HEAD", "POST", "PUT", "HEAD", "POST", "PUT", "PUT"]  # manifest; blobs; manifest
ADD = ["GET", "GET", "GET"]  # manifest, layer, config
STEPS = [  # what a copy consists of, but for the bytes of an upload
    (True, "GET", "/manifests/"),
    (True, "HEAD", "/blobs/"),
    (True, "POST", "/uploads/"),
    (True, "PUT", "/manifests/"),
    (False, "GET", "/manifests/"),
    (False, "GET", "/blobs/"),
]
SILENT: dict[Action, str] = {
    Hang(): "no answer came in time",
    Drip(): "no answer came in time",
    Cut(20, hang=True): "no answer came in time",
    EndlessHead(): "got more than 100 headers",
    LoseAnswer(): "connection reset by peer",
    Cut(): "remote end closed connection without response",
    Cut(20): "remote end closed connection in its headers",
}
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="r"'}
LATER = {"Retry-After": "3"}
MUCH_LATER = {"Retry-After": "300"}
LOOP = {"Location": "/v2/app/manifests/1"}


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        publish: whether the registry is the sink; else it is the source.
        method, path: which requests go wrong.
        action: what happens to them.
        times: to how many of them; None is all.
        ends: OK, or what the error says.
        more: how many requests there are besides those of a copy in which nothing goes
            wrong; for a copy that fails, besides those before the first that went wrong.
    """

    publish: bool
    method: str
    path: str
    action: Action
    times: int | None
    ends: str
    more: int

    def __str__(self) -> str:
        action = type(self.action).__name__
        if isinstance(self.action, Status):
            action = f"{self.action.code}{'+wait' if self.action.headers else ''}"
        way = "publish" if self.publish else "add"
        times = "always" if self.times is None else self.times
        return f"{way} {self.method} {self.path} {action} {times}"


TABLE = [
    # refusals: an answer that says no is the end, but for what may change
    Row(True, "GET", "/manifests/", Status(401), 1, r"unauthorized \(HTTP 401\)", 0),
    Row(True, "HEAD", "/blobs/", Status(401), 1, r"unauthorized \(HTTP 401\)", 0),
    Row(True, "POST", "/uploads/", Status(401), 1, r"unauthorized \(HTTP 401\)", 0),
    Row(True, "PUT", "/uploads/", Status(401), 1, r"unauthorized \(HTTP 401\)", 0),
    Row(True, "PUT", "/manifests/", Status(401), 1, r"unauthorized \(HTTP 401\)", 0),
    Row(True, "PUT", "/uploads/", Status(403), 1, r"forbidden \(HTTP 403\)", 0),
    Row(False, "GET", "/blobs/", Status(403), 1, r"forbidden \(HTTP 403\)", 0),
    Row(False, "GET", "/manifests/", Status(404), 1, "not found", 0),
    Row(False, "GET", "/blobs/", Status(404), 1, "not found", 0),
    Row(True, "PUT", "/uploads/", Status(501), 1, r"not implemented \(HTTP 501\)", 0),
    Row(True, "PUT", "/manifests/", Status(413), 1, r"request entity too large \(HTTP 413\)", 0),
    # what is temporary is tried again, and waited for if that is asked for
    *(
        Row(publish, method, path, Status(status, headers), 1, OK, 1)
        for publish, method, path in STEPS
        for status, headers in [(429, LATER), (500, {}), (502, {}), (503, LATER), (504, {})]
    ),
    *(
        Row(publish, method, path, Status(status), None, rf"\(HTTP {status}\)", TRIES - 1)
        for publish, method, path in STEPS
        for status in (429, 500, 503)
    ),
    Row(True, "HEAD", "/", Status(429, MUCH_LATER), 1, "asks to wait 300 seconds, over 30", 0),
    Row(False, "GET", "/", Status(503, MUCH_LATER), 1, "asks to wait 300 seconds, over 30", 0),
    # an upload asks what became of its bytes before it sends them again: HEAD, GET, and PUT
    Row(True, "PUT", "/uploads/", Status(500), 1, OK, 3),
    Row(True, "PUT", "/uploads/", Status(500), None, r"\(HTTP 500\)", 3 * (TRIES - 1)),
    Row(True, "PUT", "/uploads/", LoseAnswer(), 1, OK, 1),
    Row(True, "PUT", "/uploads/", Hang(served=True), 1, OK, 1),
    # and it finds another way when the registry knows nothing of it: another POST, or chunks
    Row(True, "PUT", "/uploads/", Status(404), 1, OK, 3),
    Row(True, "PUT", "/uploads/", Status(404), None, r"\(HTTP 404\)", 9),
    Row(True, "PUT", "/uploads/", Status(416), 1, OK, 3),
    # nothing comes back, or not in time
    *(
        Row(publish, method, path, action, 1, OK, 1)
        for publish, method, path in STEPS
        for action in SILENT
    ),
    *(
        Row(publish, method, path, action, None, words, TRIES - 1)
        for publish, method, path in [(True, "POST", "/uploads/"), (False, "GET", "/manifests/")]
        for action, words in SILENT.items()
        if not isinstance(action, Drip)
    ),
    Row(True, "PUT", "/manifests/", Hang(served=True), 1, OK, 1),
    Row(False, "GET", "/manifests/", Drip(), None, "no answer came in time", TRIES - 1),
    # a kept connection that is closed instead of an answer may have been closed before, so it
    # does not count where the request can be sent again
    Row(True, "PUT", "/manifests/", LoseAnswer(), None, "connection reset by peer", TRIES),
    Row(True, "PUT", "/manifests/", Cut(), None, "without response", TRIES),
    Row(True, "PUT", "/manifests/", Cut(20), None, "in its headers", TRIES),
    # bodies that end too early, too late, or not at all
    Row(False, "GET", "/manifests/", Truncate(10), 1, OK, 1),
    Row(False, "GET", "/manifests/", Truncate(10), None, "the connection was lost", TRIES - 1),
    Row(False, "GET", "/manifests/", Drop(10), 1, OK, 1),
    Row(False, "GET", "/manifests/", Drip(after=400), 1, OK, 1),
    Row(False, "GET", "/blobs/", Drip(after=400), 1, OK, 1),
    Row(False, "GET", "/manifests/", Surplus(), 1, "content has digest", 0),
    Row(False, "GET", "/manifests/", Endless(), 1, r"over 4194304 bytes", 0),
    Row(False, "GET", "/manifests/", Endless(chunked=True), 1, r"over 4194304 bytes", 0),
    Row(False, "GET", "/manifests/", Flip(), 1, "content has digest", 0),
    Row(False, "GET", "/manifests/", WrongDigest(), 1, "content has digest", 0),
    Row(False, "GET", "/blobs/", Truncate(10), 1, OK, 1),
    Row(False, "GET", "/blobs/", Drop(10), 1, OK, 1),
    Row(False, "GET", "/blobs/", Truncate(10), None, "the connection was lost", TRIES - 1),
    Row(False, "GET", "/blobs/", Surplus(), 1, "the descriptor announces", 0),
    Row(False, "GET", "/blobs/", Endless(), 1, "has more than the announced", 0),
    Row(False, "GET", "/blobs/", Endless(chunked=True), 1, "has more than the announced", 0),
    Row(False, "GET", "/blobs/", Flip(), 1, "content has digest", 0),
    # a registry that kept something else than it was sent
    Row(True, "PUT", "/uploads/", WrongDigest(), 1, "content has digest", 0),
    Row(True, "PUT", "/manifests/", WrongDigest(), 1, "content has digest", 0),
    # redirects
    Row(False, "GET", "/manifests/", Status(307, LOOP), None, "over 5 redirects", MAX_REDIRECTS),
    Row(True, "GET", "/manifests/", Status(302, LOOP), None, OK, MAX_REDIRECTS),  # to be replaced
    Row(False, "GET", "/manifests/", Status(307, LOOP), 1, OK, 1),
    Row(True, "PUT", "/uploads/", Status(307, LOOP), 1, r"\(HTTP 307\)", 0),
]


@pytest.fixture
def image(tmp_path: Path) -> GeneratedImage:
    return image_layout(tmp_path / "layout", layers=1)


@pytest.fixture
def transport(registry: Registry, waits: list[float]) -> Iterator[Transport]:
    """A transport with the usual timeouts, which no test waits for."""
    with Transport(Endpoint(registry.host, plain_http=True), Access(), waits.append) as transport:
        yield transport


def load(registry: Registry, image: GeneratedImage) -> None:
    registry.repositories.load(image.path, "app")
    registry.repositories.tag("app", "1", image.manifest)


def publish(transport: Transport, image: GeneratedImage) -> Digest:
    sink = RegistrySink(Repository(transport, "app"), APP)
    return copy(LayoutSource(image.path), sink, jobs=1).root.digest


def add(transport: Transport, store: Store) -> Digest:
    source = RegistrySource(Repository(transport, "app"), APP)
    return copy(source, StoreSink(store, NAME), jobs=1).root.digest


def methods(registry: Registry) -> list[str]:
    return [request.method for request in registry.requests]


def outcome(do: Callable[[], Digest], image: GeneratedImage) -> str:
    """Return OK, or what the error says, which is one line."""
    try:
        assert do() == image.manifest
    except OcistowError as error:
        words = str(error)
    else:
        return OK
    assert "\n" not in words
    assert len(words) < 300
    return words


def assert_registry_sound(registry: Registry, image: GeneratedImage, *, named: bool) -> None:
    """Nothing is there but the image's own content, and its name only if all of that is."""
    there = registry.repositories.blobs("app")
    for digest in there:
        assert Digest.of(registry.repositories.blob(digest)) == digest
    tags = registry.repositories.tags("app")
    assert tags in ([{"1": image.manifest}] if named else [{}, {"1": image.manifest}])
    if tags:
        assert {image.config, *image.layers} <= there


def assert_store_sound(store: Store, image: GeneratedImage, *, named: bool) -> None:
    """Every blob is what its name says, and the image has a name only if it is whole."""
    assert_sound(store)
    assert list(store.names()) == ([NAME.path] if named else [])
    if named:
        assert {image.manifest, image.config, *image.layers} <= set(store.blobs)


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_every_fault_has_an_end(
    registry: Registry, store: Store, image: GeneratedImage, row: Row
) -> None:
    if not row.publish:
        load(registry, image)
    registry.faults.append(Fault(row.method, row.path, row.action, row.times))
    hangs = isinstance(row.action, Hang | Drip | Cut)
    endpoint = Endpoint(registry.host, plain_http=True)
    with Transport(endpoint, access_for(row.action), lambda _: None) as transport:
        if row.publish:
            found = outcome(lambda: publish(transport, image), image)
        else:
            found = outcome(lambda: add(transport, store), image)
    if row.ends == OK:
        assert found == OK
        expected = len(PUBLISH if row.publish else ADD) + row.more
    else:
        assert re.search(row.ends, found)
        expected = first(registry.requests, row) + row.more
    if row.publish:
        assert_registry_sound(registry, image, named=found == OK)
    else:
        assert_store_sound(store, image, named=found == OK)
    slow = 2 if hangs else 0  # good answers of a busy machine may come too late, too
    assert expected <= len(registry.requests) <= expected + slow, methods(registry)


def first(requests: list[Request], row: Row) -> int:
    """Return the number of the first request that went wrong, from 1 on."""
    wrong = (
        number
        for number, request in enumerate(requests, 1)
        if re.fullmatch(row.method, request.method) and re.search(row.path, request.path)
    )
    return next(wrong)


COPIES = [
    *(("publish", number) for number in range(len(PUBLISH))),
    *(("add", number) for number in range(len(ADD))),
]


@pytest.mark.parametrize(("way", "number"), COPIES)
def test_a_connection_cut_at_any_edge_costs_only_requests(
    registry: Registry,
    transport: Transport,
    tmp_path: Path,
    image: GeneratedImage,
    way: str,
    number: int,
) -> None:
    """The answer to each request of a copy, cut before, in and after its head and its body."""

    def run(name: str) -> int:
        registry.requests.clear()
        with Store.create(tmp_path / name) as store:
            if way == "publish":
                registry.repositories.clear()
                assert publish(transport, image) == image.manifest
                assert_registry_sound(registry, image, named=True)
            else:
                assert add(transport, store) == image.manifest
                assert_store_sound(store, image, named=True)
        return len(registry.requests)

    if way == "add":
        load(registry, image)
    clean = run("clean")
    assert methods(registry) == (PUBLISH if way == "publish" else ADD)
    request = registry.requests[number]
    assert request.ended.wait(sum(Access().timeout))
    head, whole = request.head, request.answered
    edges = {
        0,
        1,
        12,
        head // 2,
        head - 2,
        head - 1,
        head,
        head + 1,
        (head + whole) // 2,
        whole - 1,
    }
    for edge in sorted(edge for edge in edges if edge < whole):
        registry.faults.append(Fault(".*", "", Cut(edge), skip=number))
        assert run(str(edge)) <= clean + 2
        assert len(registry.faults) == 0


@pytest.mark.parametrize("after", [0, 1, 500, -1])
def test_an_upload_cut_at_any_edge_costs_only_requests(
    registry: Registry, transport: Transport, image: GeneratedImage, after: int
) -> None:
    size = image.blob(image.layers[0]).stat().st_size
    registry.faults.append(Fault("PUT", "/uploads/", Drop(after % size)))
    assert publish(transport, image) == image.manifest
    assert_registry_sound(registry, image, named=True)
    assert (
        len(registry.requests) <= len(PUBLISH) + 5
    )  # one byte is not told from none: it is sent once more


class Renewing:
    """Sends `Bearer 1`, and after a challenge `Bearer 2`, and so on up to a last one."""

    def __init__(self, last: int) -> None:
        self._number = 1
        self._last = last

    def header(self, url: str, scopes: Sequence[str]) -> str:
        return f"Bearer {self._number}"

    def challenged(self, url: str, challenges: Sequence[str], scopes: Sequence[str]) -> bool:
        assert challenges == (CHALLENGE["WWW-Authenticate"],)
        self._number += 1
        return self._number <= self._last

    def asked(self) -> str:
        return ""


@pytest.mark.parametrize(("way", "number"), COPIES)
def test_a_401_in_mid_copy_renews_the_token(
    registry: Registry,
    waits: list[float],
    store: Store,
    image: GeneratedImage,
    way: str,
    number: int,
) -> None:
    if way == "add":
        load(registry, image)
    registry.faults.append(Fault(".*", "", Status(401, CHALLENGE), skip=number))
    endpoint = Endpoint(registry.host, plain_http=True)
    with Transport(endpoint, Access(), waits.append, authorization=Renewing(2)) as transport:
        done = publish(transport, image) if way == "publish" else add(transport, store)
    assert done == image.manifest
    sent = [request.headers["Authorization"] for request in registry.requests]
    assert sent == sorted(sent)
    assert sent.count("Bearer 1") == number + 1
    clean = PUBLISH if way == "publish" else ADD
    upload = clean[number] == "PUT" and number + 1 < len(clean)
    # a body that went out is sent again, when the registry has told that it has nothing of it
    assert len(sent) == len(clean) + (3 if upload else 1)
    assert waits == []


def test_a_body_may_meet_several_401s(
    registry: Registry, waits: list[float], image: GeneratedImage
) -> None:
    registry.faults.append(Fault("PUT", "/uploads/", Status(401, CHALLENGE), times=TRIES))
    endpoint = Endpoint(registry.host, plain_http=True)
    with Transport(endpoint, Access(), waits.append, authorization=Renewing(99)) as transport:
        assert publish(transport, image) == image.manifest
    assert len(waits) == TRIES - 1
    assert_registry_sound(registry, image, named=True)


def test_a_401_that_stays_is_the_end(
    registry: Registry, waits: list[float], image: GeneratedImage
) -> None:
    registry.faults.append(Fault("PUT", "/uploads/", Status(401, CHALLENGE), times=None))
    endpoint = Endpoint(registry.host, plain_http=True)
    with Transport(endpoint, Access(), waits.append, authorization=Renewing(99)) as transport:
        found = outcome(lambda: publish(transport, image), image)
    assert re.search(r"unauthorized, also with new credentials \(HTTP 401\)$", found)
    sent = [request for request in registry.requests if request.method == "PUT"]
    assert len(sent) == TRIES + 1
    assert len(waits) == TRIES - 1


@pytest.mark.parametrize(
    ("action", "ends", "requests"),
    [  # the tag, two mounts, the manifest; a blob that is not mounted is HEAD, POST and PUT
        (Status(403), OK, 3 + 2 * 3),  # nothing more is asked of that repository
        (Status(404), OK, 4 + 3),
        (Status(429, MUCH_LATER), OK, 4 + 3),
        (Status(500), OK, 4 + 1),
        (LoseAnswer(), OK, 4 + 1),
        (Cut(20), OK, 4 + 1),
        (Status(202), "no Location for the upload", 2),
        (Status(202, {"Location": "http://[x"}), "not an HTTP URL", 2),
    ],
    ids=str,
)
def test_a_mount_that_fails_is_no_failure(
    registry: Registry,
    store: Store,
    image: GeneratedImage,
    action: Action,
    ends: str,
    requests: int,
) -> None:
    with open_sink(f"docker://{registry.host}/base:1", store) as sink:
        copy(LayoutSource(image.path), sink)
    registry.requests.clear()
    registry.faults.append(Fault("POST", "mount=", action))

    def mounted() -> Digest:
        with open_sink(f"docker://{registry.host}/app:1", store) as sink:
            return copy(LayoutSource(image.path), sink, jobs=1).root.digest

    found = outcome(mounted, image)
    assert found == OK if ends == OK else re.search(ends, found)
    assert_registry_sound(registry, image, named=ends == OK)
    assert len(registry.requests) == requests, [(r.method, r.path[:60]) for r in registry.requests]


def test_a_registry_that_lies_about_a_mount_gets_no_name(
    registry: Registry, store: Store, image: GeneratedImage
) -> None:
    with open_sink(f"docker://{registry.host}/base:1", store) as sink:
        copy(LayoutSource(image.path), sink)
    registry.faults.append(Fault("POST", "mount=", Status(201), times=None))
    with (
        open_sink(f"docker://{registry.host}/app:1", store) as sink,
        pytest.raises(RegistryError, match="MANIFEST_BLOB_UNKNOWN"),
    ):
        copy(LayoutSource(image.path), sink)
    assert_registry_sound(registry, image, named=False)
