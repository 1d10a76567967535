"""Peers that are never silent for long, and never come to an end."""

import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress

import pytest

from ocistow.oci.descriptor import OCI_LAYER, Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.errors import NotFound, OcistowError, RegistryError, RegistryUnavailable
from ocistow.publish.access import Access
from ocistow.publish.deadline import _Watch, limit  # pyright: ignore[reportPrivateUsage] - a new one
from ocistow.publish.distribution.endpoint import Endpoint
from ocistow.publish.distribution.repository import Repository
from ocistow.publish.distribution.transport import Transport
from ocistow.publish.docker.engine import Engine
from ocistow.publish.docker.host import Host

from .conftest import IMPATIENT

LASTING = 60.0  # seconds after which a peer gives up, so that a failure is no hang
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\n"
LAYER = bytes(1 << 20)
DESCRIPTOR = Descriptor(OCI_LAYER, Digest.of(LAYER), len(LAYER))


class Peer:
    """Says `first` after each request, then `rest` every `pause` seconds.

    Attributes:
        sent: bytes of `rest` that the last client took.
        lasted: whether a client bore all of that.
    """

    def __init__(self, first: bytes, rest: bytes, pause: float = 0.02) -> None:
        self._first, self._rest, self._pause = first, rest, pause
        self._stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.sent = 0
        self.lasted = False

    def serve(self) -> None:
        while not self._stopped.is_set():
            with suppress(OSError), self._listener.accept()[0] as client:
                client.settimeout(LASTING)
                client.recv(1 << 16)
                self.sent = 0
                client.sendall(self._first)
                end = time.monotonic() + LASTING
                while time.monotonic() < end and not self._stopped.wait(self._pause):
                    client.sendall(self._rest)
                    self.sent += len(self._rest)
                self.lasted = not self._stopped.is_set()

    def stop(self) -> None:
        self._stopped.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextmanager
def peer(first: bytes, rest: bytes, pause: float = 0.02) -> Generator[Peer]:
    peer = Peer(first, rest, pause)
    thread = threading.Thread(target=peer.serve)
    thread.start()
    try:
        yield peer
    finally:
        peer.stop()
        thread.join()


@contextmanager
def repository(peer: Peer, timeout: tuple[float, float] = IMPATIENT) -> Generator[Repository]:
    def no_second_try(_: float) -> None:
        raise _Tried

    endpoint = Endpoint(peer.host, plain_http=True)
    with Transport(endpoint, Access(timeout=timeout), no_second_try) as transport:
        yield Repository(transport, "app")


class _Tried(Exception):
    """An attempt ended; its error is the context of this one."""


def refusal(peer: Peer, ask: Callable[[], object]) -> OcistowError:
    """Return the error of one attempt, which must come before the peer ends it."""
    try:
        ask()
    except _Tried as tried:
        error = tried.__context__
    except OcistowError as found:
        error = found
    else:
        pytest.fail("the peer was believed")
    assert isinstance(error, OcistowError)
    assert not peer.lasted
    return error


@pytest.mark.parametrize(
    ("first", "rest", "pause"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, 0.0),
        (b"", b"H", 0.02),
        (OK + b"X-A: ", b"a", 0.02),
    ],
    ids=["continues", "status line", "header"],
)
def test_headers_come_in_time(first: bytes, rest: bytes, pause: float) -> None:
    with peer(first, rest, pause) as slow, repository(slow) as asked:
        error = refusal(slow, lambda: asked.manifest("1"))
    assert isinstance(error, RegistryUnavailable)
    assert error.message == "no answer came in time"


@pytest.mark.parametrize(
    ("first", "rest"),
    [
        (OK + b"Content-Length: 100000\r\n\r\n", b" "),
        (OK + b"Connection: close\r\n\r\n", b" "),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5;", b"x"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", b"a: b\r\n"),
        (b"HTTP/1.1 403 x\r\nContent-Length: 100000\r\n\r\n", b" "),
    ],
    ids=["length", "close", "chunk", "trailers", "refusal"],
)
def test_a_document_comes_in_time(first: bytes, rest: bytes) -> None:
    with peer(first, rest) as slow, repository(slow) as asked:
        error = refusal(slow, lambda: asked.manifest("1"))
    assert isinstance(error, RegistryUnavailable)
    assert error.message == "no more data came in time"


def test_a_layer_that_drips_is_given_up() -> None:
    head = OK + b"Content-Length: %d\r\n\r\n" % len(LAYER)
    with (
        peer(head, b"x" * 100) as slow,
        repository(slow) as asked,
        asked.blob(DESCRIPTOR) as blob,
    ):
        error = refusal(slow, lambda: b"".join(blob))
    assert isinstance(error, RegistryUnavailable)
    assert error.message == "no more data came in time"


def test_a_layer_may_take_longer_than_a_document() -> None:
    head = OK + b"Content-Length: %d\r\n\r\n" % len(LAYER)
    seconds = 2.0  # for a document, or a piece of a layer
    pieces = 25
    with (
        peer(head, LAYER[: len(LAYER) // pieces + 1], 1.2 * seconds / pieces) as slow,
        repository(slow, (10.0, seconds)) as asked,
    ):
        began = time.monotonic()
        with asked.blob(DESCRIPTOR) as blob:
            assert b"".join(blob) == LAYER
        assert time.monotonic() - began > seconds


def test_a_redirect_that_is_not_followed_is_not_read_whole() -> None:
    head = b"HTTP/1.1 307 x\r\nLocation: /x\r\nContent-Length: 10000000000\r\n\r\n"
    with peer(head, bytes(1 << 20), 0.0) as huge, repository(huge) as asked:
        error = refusal(huge, lambda: asked.put_manifest("1", DESCRIPTOR, b"{}"))
        assert huge.sent < 64 << 20
    assert type(error) is RegistryError


@pytest.mark.parametrize(
    ("first", "rest"),
    [(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), (b"HTTP/1.1 200 OK\r\n\r\n", b" ")],
    ids=["headers", "body"],
)
def test_a_daemon_answers_in_time(first: bytes, rest: bytes) -> None:
    with peer(first, rest) as slow:
        error = refusal(slow, Engine(Host.parse(f"tcp://{slow.host}"), IMPATIENT).platform)
    assert isinstance(error, RegistryUnavailable)
    assert error.message == "no answer came in time"


def test_without_a_thread_nothing_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what begins when there is one again is watched."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("ocistow.publish.deadline._watch", _Watch())
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with monkeypatch.context() as poor:
            poor.setattr(threading.Thread, "start", refuse)
            with pytest.raises(BlockingIOError, match="no thread"), limit(ours, 60.0):
                raise AssertionError
        with pytest.raises(TimeoutError), limit(ours, 0.05):
            ours.recv(1)


def test_what_ends_in_time_is_left_alone() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with pytest.raises(NotFound), limit(ours, 60.0):
            raise NotFound("x")
        with limit(ours, 60.0), limit(ours, 30.0):
            theirs.send(b"x")
            assert ours.recv(1) == b"x"
        with pytest.raises(TimeoutError), limit(ours, 0.05):
            ours.recv(1)
