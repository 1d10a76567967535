"""The hashes of a file while it is written."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence

from ..oci.digest import new_hash
from ..oci.errors import InvalidContent
from .reading import READ_SIZE

AHEAD = 512 << 10  # bytes that are written before somebody reads behind; a thread costs 60 us
_CHUNK = 256 << 10  # bytes; what was just written is still in the processor's cache
_SEEN = 8 << 20  # bytes
_IDLE = 1.0  # seconds for which a writer may rest before the thread that waits for it ends

Seen = Callable[[int, int, int], None]


class Hashing:
    """Hashes of a file's first bytes, up to `at`.

    They are handed over by `take`, or read by a thread that follows behind the writer: it finds
    them in the page cache, so nothing is kept in memory and no writer waits. Whoever changes
    bytes again says so before, and all is hashed anew.

    Not thread-safe, but for the thread it starts.
    """

    def __init__(self, algorithms: Sequence[str], seen: Seen | None = None) -> None:
        """Prepare; `seen` hears what was read behind: file, offset and length of some MiB."""
        self._algorithms = tuple(algorithms)
        self._seen = seen
        self._condition = threading.Condition()
        self._end = -1  # up to where the thread may read; less than it did to end it
        self._is_read = False  # there is a thread
        self._is_steady = True  # nothing was changed after it was read
        self.restart()

    @property
    def algorithms(self) -> tuple[str, ...]:
        """Those that are computed."""
        return self._algorithms

    @property
    def at(self) -> int:
        """How many bytes were hashed, while nobody reads behind."""
        return self._at

    def restart(self) -> None:
        """Begin with the first byte, of a file that begins anew."""
        self.stop()
        self._hashes = [new_hash(algorithm) for algorithm in self._algorithms]
        self._at = 0
        self._is_steady = True

    def take(self, data: bytes | memoryview) -> None:
        """Hash the bytes that come next."""
        for one in self._hashes:
            one.update(data)
        self._at += len(data)

    def follow(self, file: int, end: int) -> None:
        """Let a thread hash an open file's bytes up to `end`, which are there."""
        if not self._is_steady:
            return  # of a file that is not written in order, all is read in the end, once
        with self._condition:
            self._end = end
            if self._is_read:
                if end - self._at >= _CHUNK:
                    self._condition.notify()
            elif end - self._at >= AHEAD:
                self._begin(file)

    def change(self, offset: int) -> None:
        """Prepare for other bytes from `offset` on."""
        if offset < max(self._at, self._end):
            self.stop()
            if offset < self._at:
                self.restart()
                self._is_steady = False

    def stop(self) -> None:
        """Return once nobody reads behind any more; `follow` goes on."""
        with self._condition:
            self._end = -1
            self._condition.notify()
            self._condition.wait_for(lambda: not self._is_read)

    def finish(self, file: int, size: int) -> Sequence[str]:
        """Hash the rest of the `size` bytes of an open file; return the hashes in hexadecimal.

        Raises:
            InvalidContent: the file is shorter.
        """
        self.stop()
        while self._at < size:
            data = os.pread(file, min(READ_SIZE, size - self._at), self._at)
            if not data:
                raise InvalidContent(f"blob ended at byte {self._at} of {size}")
            self.take(data)
        return [one.hexdigest() for one in self._hashes]

    def _begin(self, file: int) -> None:
        """Start the thread if that can be done; else all is read in the end."""
        try:
            # Of its own: the writer's may be for writing only, and is closed at any time.
            own = os.open(f"/proc/self/fd/{file}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # its mode lets nobody read, or too many are open
            return
        try:
            threading.Thread(target=self._read, args=(own,), name="hash", daemon=True).start()
        except RuntimeError:  # there are too many threads
            os.close(own)
        else:
            self._is_read = True

    def _read(self, file: int) -> None:
        buffer = memoryview(bytearray(_CHUNK))
        told = self._at
        try:
            while size := self._wait():
                if not (count := os.preadv(file, [buffer[:size]], self._at)):
                    break
                self.take(buffer[:count])
                if self._seen is not None and self._at - told >= _SEEN:
                    self._seen(file, told, self._at - told)
                    told = self._at
        except OSError:  # whoever wants the digest reads again, and hears it
            pass
        finally:
            os.close(file)
            with self._condition:
                self._is_read = False
                self._condition.notify_all()

    def _wait(self) -> int:
        """Return how many bytes there are to be read; 0 when there are none for long.

        A few only if no more come: to wake for each small write costs more than to hash it.
        """
        with self._condition:
            if 0 <= self._end < self._at + _CHUNK:
                self._condition.wait(_IDLE)
            return max(0, min(_CHUNK, self._end - self._at))
