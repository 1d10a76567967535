"""Reading on while the last block is still being sent."""

from __future__ import annotations

import queue
import threading
from contextlib import suppress

from ..store.reading import READ_SIZE
from .source import Stream

DEPTH = 8  # blocks that wait


class Ahead:
    """A stream that a thread of its own reads, up to `DEPTH` blocks ahead.

    Who reads it, and who closes it, must be one thread. What reading raises is raised
    by `read`, in its place.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._blocks: queue.Queue[bytes | BaseException] = queue.Queue(DEPTH)
        self._rest = b""
        self._ended = False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ahead", daemon=True)
        self._thread.start()

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, and none only at the end."""
        if not self._rest and not self._ended:
            block = self._blocks.get()
            if isinstance(block, BaseException):
                self._ended = True
                raise block
            self._ended = not block
            self._rest = block
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def close(self) -> None:
        """End the thread, and close the stream that it read."""
        self._closed.set()
        while self._thread.is_alive():  # it may be about to leave a block
            with suppress(queue.Empty):
                self._blocks.get_nowait()
            self._thread.join(0.01)
        self._stream.close()

    def _run(self) -> None:
        try:
            while not self._closed.is_set():
                block = self._stream.read(READ_SIZE)
                self._blocks.put(block)
                if not block:
                    return
        except BaseException as error:  # raised where it is read
            self._blocks.put(error)
