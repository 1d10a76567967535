"""An in-process registry on 127.0.0.1 that remembers its requests and misbehaves on demand."""

from __future__ import annotations

import base64
import logging
import select
import socket
import socketserver
import struct
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from itertools import chain, repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self
from urllib.parse import parse_qsl, unquote, urlsplit

from .damage import Close, Reset, Writer, beginning, flipped, wait_for_end
from .exchange import READ_SIZE, Answer, Call, Refused, Request
from .faults import (
    Action,
    Drop,
    Endless,
    EndlessHead,
    Faults,
    Flip,
    Hang,
    LoseAnswer,
    Stall,
    Status,
    Surplus,
    Truncate,
    WrongDigest,
)
from .repositories import Repositories
from .servers import POLL, answering

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST and forgets what was not sent

log = logging.getLogger(__name__)


class Registry:
    """A registry of the distribution-spec 1.1, alive inside its `with` block.

    Content may be pulled and pushed, also in chunks and by mount; it lies in a
    temporary directory.  With `credentials`, requests need Basic
    authentication.  With `relative`, Location headers have no host.  Leaving
    the block ends every connection, even a hanging one, and waits for the
    threads.

    Attributes:
        host: `127.0.0.1:PORT`, as it stands in a reference.
        url: `http://` and the host.
        repositories: the content, to prepare it or to look at it.
        requests: every request so far, oldest first; may be cleared.
        faults: what shall go wrong with the next requests.
        authorization: the header that requests need; None is none.
        guard: called with method, path and headers of each request, to refuse it.
    """

    host: str
    url: str
    repositories: Repositories

    def __init__(
        self, *, credentials: tuple[str, str] | None = None, relative: bool = False
    ) -> None:
        self.requests: list[Request] = []
        self.faults = Faults()
        self._relative = relative
        self.authorization: str | None = None
        self.guard: Callable[[str, str, Message], None] | None = None
        if credentials is not None:
            plain = ":".join(credentials).encode()
            self.authorization = f"Basic {base64.b64encode(plain).decode()}"
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            directory = stack.enter_context(TemporaryDirectory(prefix="registry-"))
            server = stack.enter_context(_Server(self))
            stack.callback(server.hang_up)
            self.host = f"127.0.0.1:{server.server_address[1]}"
            self.url = f"http://{self.host}"
            self.repositories = Repositories(Path(directory), "" if self._relative else self.url)
            stack.enter_context(answering(server))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class _Server(socketserver.ThreadingTCPServer):
    """A server that can end its connections; closing it waits for their threads."""

    request_queue_size = 128
    daemon_threads = False

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def hang_up(self) -> None:
        """Wake every thread that reads or writes; call it when none can start any more."""
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):  # the client was faster
                    connection.shutdown(socket.SHUT_RDWR)

    def get_request(self) -> tuple[socket.socket, object]:
        """Accept, and remember the connection."""
        connection, address = super().get_request()
        with self._lock:
            self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        """Close at once: the FIN that is usual here would come before the RST of a fault."""
        if isinstance(request, socket.socket):
            with self._lock:
                self._connections.discard(request)
        self.close_request(request)

    def handle_error(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        """Report bugs, but not clients that left."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # header and body are two writes: 40 ms with delayed ACK

    def do_GET(self) -> None:
        registry = self._registry
        request = Request(self.command, self.path, self.headers)
        registry.requests.append(request)
        action = registry.faults.take(request.method, request.path)
        try:
            if isinstance(action, Hang) and not action.served:
                self._hang()
            body = self._receive(request, action)
            answer = self._answer(request, action, body)
            for _ in body:  # what nobody wanted, so that the next request is found
                pass
            if isinstance(action, Hang):
                self._hang()
            if isinstance(action, LoseAnswer):
                raise Reset
            request.status = answer.status
            wfile = self.wfile
            self.wfile = Writer(wfile, self.connection, action, request)
            self._send(answer, action, request)
            self.wfile = wfile
        except Close:
            self.close_connection = True
        except Reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.close_connection = True
        finally:
            request.ended.set()

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def log_message(self, format: str, *args: object) -> None:
        log.debug(format, *args)

    @property
    def _registry(self) -> Registry:
        assert isinstance(self.server, _Server)
        return self.server.registry

    def _hang(self) -> None:
        wait_for_end(self.connection)
        raise Reset

    def _stalled(self, chunks: Iterable[bytes], stall: Stall) -> Iterator[bytes]:
        left = stall.after
        for data in chunks:
            if left >= 0:
                yield data[:left]
                data, left = data[left:], left - len(data)
                if left < 0:
                    self._wait_for(stall)
            yield data

    def _wait_for(self, stall: Stall) -> None:
        stall.reached.set()
        while not stall.go_on.wait(POLL):
            if select.select([self.connection], [], [], 0)[0]:
                raise Reset  # the client left, or the registry closes

    def _receive(self, request: Request, action: Action | None) -> Iterator[bytes]:
        """Yield the body of the request as it comes in; a second pass yields nothing."""
        limit = action.after if isinstance(action, Drop) and self.command != "GET" else None
        for size in self._pieces():
            left = size
            while left:
                wanted = min(left, READ_SIZE)
                if limit is not None:
                    wanted = min(wanted, limit - request.received)
                    if not wanted:
                        raise Reset
                data = self.rfile.read1(wanted)
                if not data:
                    raise ConnectionAbortedError("the client left in the middle of a body")
                request.received += len(data)
                left -= len(data)
                yield data
        if limit is not None:
            raise Reset

    def _pieces(self) -> Iterator[int]:
        """Yield the sizes of the pieces a body comes in; the caller reads each before the next."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            yield int(self.headers.get("Content-Length", 0))
            return
        while line := self.rfile.readline():
            if size := int(line.partition(b";")[0], 16):
                yield size
                self.rfile.readline()
            else:
                while self.rfile.readline().strip():  # trailers
                    pass
                return
        raise ConnectionAbortedError("the client left between two chunks")

    def _answer(self, request: Request, action: Action | None, body: Iterable[bytes]) -> Answer:
        if isinstance(action, Status):
            return Answer(action.code, action.headers, action.body)
        registry = self._registry
        url = urlsplit(request.path)
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        try:
            if registry.authorization not in {None, request.headers.get("Authorization")}:
                challenge = {"WWW-Authenticate": 'Basic realm="registry"'}
                raise Refused(HTTPStatus.UNAUTHORIZED, "UNAUTHORIZED", "who are you?", challenge)
            if registry.guard is not None:
                registry.guard(request.method, request.path, request.headers)
            call = Call(request.method, unquote(url.path), query, request.headers, body)
            return registry.repositories.answer(call)
        except Refused as refused:
            return refused.answer()

    def _send(self, answer: Answer, action: Action | None, request: Request) -> None:
        headers = dict(answer.headers)
        length = answer.size
        chunks = answer.chunks()
        cut: int | None = None
        match action:
            case WrongDigest(digest):
                headers["Docker-Content-Digest"] = digest
            case Flip(at):
                chunks = flipped(chunks, at % max(length, 1))
            case Surplus(extra):
                length += extra
                chunks = chain(chunks, [bytes(extra)])
            case Truncate(cut) | Drop(cut):
                chunks = beginning(chunks, cut)
            case Stall():
                chunks = self._stalled(chunks, action)
            case Endless():
                chunks = chain(chunks, repeat(bytes(READ_SIZE)))
            case _:
                pass
        chunked = isinstance(action, Endless) and action.chunked
        self.send_response(answer.status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection:  # as it was asked to; who is not told may send another request
            self.send_header("Connection", "close")
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif not isinstance(action, Endless) and answer.status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(length))
        if cut is not None or isinstance(action, Endless):
            self.close_connection = True  # silently: a client must not be warned
        while isinstance(action, EndlessHead):
            self.send_header("X-More", "and more")
            self.flush_headers()
        self.end_headers()
        request.head = request.answered
        if self.command != "HEAD":
            for data in chunks:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
        if isinstance(action, Drop):
            raise Reset
