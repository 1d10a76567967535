"""An HTTP proxy on loopback that leads every name to one server."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from .peers import LIMIT, head_of
from .servers import answering

PIECE = 1 << 16  # bytes

_REFUSED = b"HTTP/1.1 407 Who Are You\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Proxy(socketserver.ThreadingTCPServer):
    """Forwards requests, and opens tunnels for CONNECT.

    Attributes:
        host: `127.0.0.1:PORT`.
        heads: what came before each body or tunnel, as it came.
        authorization: the Proxy-Authorization that it wants; None is none.
    """

    daemon_threads = False

    def __init__(self, upstream: str, authorization: str | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        name, _, port = upstream.rpartition(":")
        self.upstream = (name, int(port))
        self.host = f"127.0.0.1:{self.server_address[1]}"
        self.heads: list[bytes] = []
        self.authorization = authorization


@contextmanager
def proxying(upstream: str, authorization: str | None = None) -> Generator[Proxy]:
    """Run a proxy in front of `upstream`, `HOST:PORT`."""
    with Proxy(upstream, authorization) as proxy, answering(proxy):
        yield proxy


class _Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Proxy)
        client: socket.socket = self.request
        client.settimeout(LIMIT)
        with suppress(AssertionError, ConnectionError):  # the client left
            head = head_of(client)
            self.server.heads.append(head)
            lines = head.decode("latin-1").split("\r\n")
            wanted = self.server.authorization
            if wanted is not None and f"Proxy-Authorization: {wanted}" not in lines:
                client.sendall(_REFUSED)
                return
            with socket.create_connection(self.server.upstream, LIMIT) as upstream:
                if lines[0].startswith("CONNECT "):
                    client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                else:
                    upstream.sendall("\r\n".join(_forwarded(lines)).encode("latin-1"))
                _relay(client, upstream)


def _forwarded(lines: list[str]) -> list[str]:
    """Return the head for the server itself: a path, for one request, and nothing for a proxy."""
    method, url, version = lines[0].split(" ")
    parts = urlsplit(url)
    target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
    hidden = ("proxy-", "connection:")
    kept = [line for line in lines[1:] if not line.lower().startswith(hidden)]
    return [f"{method} {target} {version}", "Connection: close", *kept]


def _relay(client: socket.socket, server: socket.socket) -> None:
    """Pass on bytes both ways until the server has ended."""

    def upload() -> None:
        with suppress(OSError):  # either is gone
            while data := client.recv(PIECE):
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=upload)
    thread.start()
    try:
        with suppress(OSError):
            while data := server.recv(PIECE):
                client.sendall(data)
    finally:
        for connection in (client, server):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        thread.join()
