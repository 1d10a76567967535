"""Servers of the standard library that answer while a block runs."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Generator
from contextlib import contextmanager

POLL = 0.02  # seconds; how long `serve_forever` may take to notice that it shall stop


@contextmanager
def answering(server: socketserver.BaseServer) -> Generator[None]:
    """Let a server answer in a thread for the block; the caller closes it afterwards."""
    thread = threading.Thread(target=server.serve_forever, args=(POLL,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
