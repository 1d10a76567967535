"""Putting a blob into a repository once, although several threads want to."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import TypeAlias

from ..oci.digest import Digest

REMEMBERED = 10_000  # blobs that were put; who forgets one asks the repository once more

Key: TypeAlias = tuple[str, str, Digest]  # a registry, its repository, a blob


class Turns:
    """Lets one thread of the process at a time put a blob into a repository."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken: set[Key] = set()
        self._done: dict[Key, float] = {}  # when; by time.monotonic()

    @contextmanager
    def take(self, key: Key, since: float) -> Generator[bool]:
        """Have the turn for the block; yield whether another thread did it `since` then."""
        with self._changed:
            self._changed.wait_for(lambda: key not in self._taken)
            self._taken.add(key)
            done = self._done.get(key, since) > since
        try:
            yield done
            with self._changed:
                if len(self._done) >= REMEMBERED:
                    self._done.clear()
                self._done[key] = time.monotonic()
        finally:
            with self._changed:
                self._taken.discard(key)
                self._changed.notify_all()
