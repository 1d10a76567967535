"""HTTP as servers speak it that do not behave: each connection follows a script."""

import errno
import socket
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from io import BytesIO

import pytest

from ocistow.oci.descriptor import OCI_LAYER, Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.errors import InvalidContent, RegistryUnavailable
from ocistow.publish.access import TIMEOUT, Access
from ocistow.publish.distribution.endpoint import Endpoint
from ocistow.publish.distribution.exchange import Body
from ocistow.publish.distribution.transport import Transport
from ocistow.publish.source import Blob
from ocistow.testing.peers import LIMIT, Script, answering, head_of, scripted
from ocistow.testing.registry import Registry

from ..conftest import IMPATIENT

LARGE = 16 << 20  # bytes; more than the buffers of two sockets
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
WHOLE = b"HTTP/1.1 200 OK\r\nLocation: /there\r\nContent-Length: 5\r\n\r\nhello"


@contextmanager
def talking(*scripts: Script, timeout: tuple[float, float] = TIMEOUT) -> Generator[Transport]:
    with (
        scripted(*scripts) as host,
        Transport(Endpoint(host, plain_http=True), Access(timeout=timeout)) as transport,
    ):
        yield transport


def large_body() -> Body:
    content = bytes(LARGE)
    return Body(Blob(BytesIO(content), Descriptor(OCI_LAYER, Digest.of(content), LARGE)), LARGE)


def get(transport: Transport, method: str = "GET") -> bytes:
    with transport.request(method, "/") as answer:
        answer.expect(200)
        return answer.read_at_most(LARGE)


def drained(connection: socket.socket, size: int) -> None:
    while size:
        data = connection.recv(min(size, 1 << 16))
        assert data, "the client left in the middle of a body"
        size -= len(data)


def test_one_connection_serves_many_requests() -> None:
    with talking(answering(WHOLE, EMPTY, WHOLE)) as transport:
        assert [get(transport), get(transport), get(transport)] == [b"hello", b"", b"hello"]


def test_a_connection_is_not_used_again_when_the_peer_says_so() -> None:
    closing = EMPTY.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with talking(answering(closing), answering(WHOLE)) as transport:
        assert [get(transport), get(transport)] == [b"", b"hello"]


def test_a_connection_closed_meanwhile_is_no_failure() -> None:
    with talking(answering(WHOLE), answering(EMPTY)) as transport:
        assert get(transport) == b"hello"
        assert get(transport, "HEAD") == b""


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_connection_closed_instead_of_an_answer_is_no_failure(method: str) -> None:
    def late(connection: socket.socket) -> None:
        answering(WHOLE)(connection)
        head_of(connection)

    with talking(late, answering(EMPTY)) as transport:
        assert get(transport) == b"hello"
        assert get(transport, method) == b""


def test_what_may_have_been_done_is_not_sent_twice() -> None:
    def late(connection: socket.socket) -> None:
        answering(WHOLE)(connection)
        head_of(connection)

    with talking(late) as transport:
        assert get(transport) == b"hello"
        with pytest.raises(RegistryUnavailable, match="remote end closed connection"):
            get(transport, "POST")


def test_a_new_connection_that_is_closed_at_once_is_a_failure() -> None:
    with (
        talking(head_of) as transport,
        pytest.raises(RegistryUnavailable, match="remote end closed connection"),
    ):
        get(transport)


@pytest.mark.parametrize("status", [401, 413, 500])
def test_an_answer_before_the_end_of_a_body_is_the_answer(status: int) -> None:
    """Whoever refuses an upload closes without reading it, which resets the connection."""

    def refuse(connection: socket.socket) -> None:
        head_of(connection)
        connection.sendall(b"HTTP/1.1 %d x\r\nContent-Length: 5\r\n\r\nnever" % status)

    with talking(refuse, answering(EMPTY)) as transport:
        with transport.request("PUT", "/", body=large_body()) as answer:
            assert answer.status == status
            assert answer.read_at_most(99) == b"never"
        assert get(transport) == b""  # on another connection


def test_an_interim_answer_does_not_end_a_body() -> None:
    def hasty(connection: socket.socket) -> None:
        head_of(connection)
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        drained(connection, LARGE)
        connection.sendall(EMPTY)

    with talking(hasty) as transport, transport.request("PUT", "/", body=large_body()) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("pause", [LIMIT, 0.01], ids=["nothing", "too little"])
def test_a_peer_that_does_not_take_a_body_in_time_is_given_up(pause: float) -> None:
    over = threading.Event()

    def slow(connection: socket.socket) -> None:
        head_of(connection)
        for _ in range(int(LIMIT / pause)):
            if over.wait(pause):
                return
            connection.recv(100)

    with talking(slow, timeout=IMPATIENT) as transport:
        with pytest.raises(RegistryUnavailable, match="no answer came in time"):
            transport.request("PUT", "/", body=large_body())
        over.set()


@pytest.mark.parametrize("cut", range(len(WHOLE)))
def test_an_answer_cut_anywhere_is_a_failure(cut: int) -> None:
    """A cut Location would be a URL, and headers without Content-Length an empty body."""
    with (
        talking(answering(WHOLE[:cut])) as transport,
        pytest.raises(RegistryUnavailable),
    ):
        get(transport)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
PARTS = CHUNKED + b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\na: b\r\n\r\n"


def test_chunks_are_one_body() -> None:
    with talking(answering(PARTS, PARTS)) as transport:
        assert [get(transport), get(transport)] == [b"hello", b"hello"]


@pytest.mark.parametrize("cut", range(len(CHUNKED), len(PARTS) - len("\r\na: b\r\n\r\n")))
def test_chunks_cut_anywhere_are_a_failure(cut: int) -> None:
    with (
        talking(answering(PARTS[:cut])) as transport,
        pytest.raises(RegistryUnavailable, match="the connection was lost"),
    ):
        get(transport)


@pytest.mark.parametrize("size", [b"-1", b"-ffffffff", b"x", b"", b"0x" + b"9" * 70_000])
def test_a_chunk_of_no_size_is_a_failure(size: bytes) -> None:
    with (
        talking(answering(CHUNKED + size + b"\r\nhello\r\n")) as transport,
        pytest.raises(RegistryUnavailable, match="the connection was lost"),
    ):
        get(transport)


def test_a_chunk_without_end_is_not_read_whole() -> None:
    """To http.client, a size of -1 is all that ever comes."""

    def endless(connection: socket.socket) -> None:
        answering(CHUNKED + b"-1\r\n")(connection)
        while True:
            connection.sendall(bytes(1 << 20))

    with (
        talking(endless) as transport,
        pytest.raises(RegistryUnavailable, match="more than 65536 bytes"),
        transport.request("GET", "/") as answer,
    ):
        answer.read(100)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"HTTP/1.1 200\x00OK\r\n" * 200,
        b"HTTP/1.1 2OO OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 101 + b"\r\n",
        b"HTTP/1.1 200 OK\r\na: " + b"b" * 70_000 + b"\r\n\r\n",
    ],
    ids=["ssh", "repeated", "letters", "short", "version", "headers", "line"],
)
def test_what_is_no_http_is_one_line(answer: bytes) -> None:
    with talking(answering(answer)) as transport, pytest.raises(RegistryUnavailable) as raised:
        get(transport)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300


def test_nobody_there_is_one_line() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        with (
            Transport(Endpoint(host, plain_http=True), Access()) as transport,
            pytest.raises(RegistryUnavailable, match=r": connection refused$"),
        ):
            get(transport)


def test_no_header_can_be_added_by_a_value() -> None:
    with talking() as transport, pytest.raises(InvalidContent) as raised:
        transport.request("GET", "/", {"Authorization": "Bearer secret\r\nX-C: d"})
    assert str(raised.value).endswith("/: Authorization is not printable ASCII")


def test_what_a_source_says_is_not_the_registrys_fault() -> None:
    class Broken(BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

    def patient(connection: socket.socket) -> None:
        head_of(connection)
        connection.recv(1)

    body = Body(Blob(Broken(), Descriptor(OCI_LAYER, Digest.of(b"x"), 1)), 1)
    with talking(patient) as transport, pytest.raises(OSError, match="Input/output") as raised:
        transport.request("PUT", "/", body=body)
    assert raised.value.errno == errno.EIO


def test_plain_http_does_not_import_requests() -> None:
    """That would take longer than to find out that a registry has an image already."""
    code = """
import sys
from ocistow.oci.reference import Reference
from ocistow.publish.access import TIMEOUT, Access
from ocistow.publish.distribution.hosts import open_repository

with open_repository(Reference.parse(sys.argv[1]), Access(), push=True) as repository:
    assert not repository.has_blob(Reference.parse(sys.argv[2]).digest)
print({"requests", "urllib3"} & sys.modules.keys())
"""
    digest = f"x@{Digest.of(b'')}"
    with Registry() as registry:
        command = [sys.executable, "-c", code, f"{registry.host}/app", digest]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"
