"""Removal of what a survey found useless, while writers wait for milliseconds.

docs/adr/0014-collecting.md lists what others may do between the two, and what sees it.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from ...oci.digest import Digest
from ...oci.errors import NotFound
from ..leases import Held
from ..reading import BLOCK
from ..store import Store
from .survey import Identity, Stray, identity

BUDGET = 0.010  # seconds for which the lock is held at once
PAUSE = 0.015  # seconds between; whoever waits for the lock looks every 5 ms

_LARGE = 16 << 20  # bytes; what is larger takes long to free, 100 ms for 10 GB on ext4
_MOST = 64  # large files that are freed after one batch

Watch = Callable[[int, int], None]


class Pace:
    """Lets those who wait have the store's lock, now and then between short holds of it."""

    def __init__(self) -> None:
        self._until = time.monotonic() + BUDGET

    def rest(self) -> None:
        """Sleep, if it may have been held for long enough; the caller does not hold it."""
        if time.monotonic() >= self._until:
            time.sleep(PAUSE)
            self._until = time.monotonic() + BUDGET


@dataclass(frozen=True, slots=True)
class Collected:
    """What was removed, or would be.

    Attributes:
        blobs: how many of the pool.
        links: how many names that layouts had.
        freed: bytes on disk.
        recent: blobs that were kept because something changed within the grace.
        leased: blobs that were kept because somebody relies on them.
    """

    blobs: int = 0
    links: int = 0
    freed: int = 0
    recent: int = 0
    leased: int = 0

    def __add__(self, other: Collected) -> Collected:
        return Collected(
            self.blobs + other.blobs,
            self.links + other.links,
            self.freed + other.freed,
            self.recent + other.recent,
            self.leased + other.leased,
        )


@dataclass(frozen=True, slots=True)
class Link:
    """A layout's name for a blob that its index does not mention."""

    stray: Stray
    status: os.stat_result


@dataclass(slots=True)
class Candidate:
    """Names of a blob that may go.

    Attributes:
        pool: the pool's file, unless that stays: inode, time of the last change, links.
        status: of a file of the blob.
        links: names that layouts have.
    """

    digest: Digest
    pool: Identity | None
    status: os.stat_result
    links: deque[Link] = field(default_factory=deque[Link])

    def fate(self) -> Collected:
        """Return what becomes of it if nobody touches it."""
        files = [link.status for link in self.links] + ([self.status] if self.pool else [])
        names = Counter(file.st_ino for file in files)
        sizes = {file.st_ino: (file.st_nlink, file.st_blocks * BLOCK) for file in files}
        freed = sum(
            size for inode, (links, size) in sizes.items() if names[inode] == links
        )  # others may have the file by names that are not ours
        return Collected(int(self.pool is not None), len(self.links), freed)


class Sweep:
    """Removes candidates, a few at a time. Not thread-safe."""

    def __init__(self, store: Store, watch: Watch = lambda _done, _all: None) -> None:
        self._store = store
        self._watch = watch
        self._large: list[int] = []

    def preview(self, candidates: Iterable[Candidate]) -> Collected:
        """Return what `remove` would do."""
        held = self._store.leases.held()
        return sum(
            (Collected(leased=1) if c.digest in held else c.fate() for c in candidates),
            Collected(),
        )

    def remove(self, candidates: Iterable[Candidate]) -> Collected:
        """Remove names, the small ones first: manifests before layers.

        Whoever still knew the image then finds nothing of it, rather than a half.

        Raises:
            Busy: another process holds the store.
        """
        waiting = deque(sorted(candidates, key=lambda c: (c.status.st_size, c.digest)))
        removed, count = Collected(), len(waiting)
        if waiting:
            self._store.blobs.settle()  # no crash brings back an older index than those read
            self._store.leases.held()  # read them before anybody has to wait for that
        while waiting:
            try:
                with self._store.lock.held():
                    removed += self._store.leases.while_fixed(
                        lambda held: self._batch(waiting, held)
                    )
            finally:
                self._free()
            self._watch(count - len(waiting), count)
            if waiting:
                time.sleep(PAUSE)
        return removed

    def _batch(self, waiting: deque[Candidate], held: Held) -> Collected:
        until = time.monotonic() + BUDGET
        removed = Collected()
        while waiting and time.monotonic() < until and len(self._large) < _MOST:
            candidate = waiting[0]
            if candidate.digest in held:
                removed += Collected(leased=1)
            elif candidate.pool and self._pool(candidate.digest) != candidate.pool:
                removed += Collected(recent=1)
            else:
                part, is_done = self._remove(candidate, until)
                removed += part
                if not is_done:
                    break
            waiting.popleft()
        return removed

    def _remove(self, candidate: Candidate, until: float) -> tuple[Collected, bool]:
        """Remove a blob's names; returns with it whether all are gone, or must stay."""
        removed = Collected()
        while candidate.links:
            freed = self._unlink(candidate.digest, candidate.links[0])
            if freed is None:
                return removed + Collected(recent=1), True
            removed += Collected(links=1, freed=freed)
            candidate.links.popleft()
            if candidate.pool:
                candidate.pool = self._pool(candidate.digest)  # it has a name less
            if time.monotonic() >= until and (candidate.links or candidate.pool):
                return removed, False
        if candidate.pool:
            status = self._store.blobs.stat(candidate.digest)
            freed = self._last(status, self._store.blobs.path_of(candidate.digest))
            self._store.blobs.delete(candidate.digest)
            removed += Collected(blobs=1, freed=freed)
        return removed, True

    def _unlink(self, digest: Digest, link: Link) -> int | None:
        """Remove a layout's name and return the bytes that frees; None if it may be needed."""
        layout = self._store.layout(PurePosixPath(link.stray.name))
        path = self._store.layouts / layout.name
        now = layout.own(digest)
        if (
            now is None
            or now.st_ino != link.status.st_ino
            or identity(str(path / "index.json")) != link.stray.index
        ):
            return None
        freed = self._last(now, path / "blobs" / digest.algorithm / digest.encoded)
        layout.unlink(digest)
        return freed

    def _last(self, status: os.stat_result, path: str | os.PathLike[str]) -> int:
        """Return what removing a name frees; a large file is freed when the lock is, too."""
        if status.st_nlink > 1:
            return 0
        if status.st_blocks * BLOCK >= _LARGE:
            with suppress(OSError):
                self._large.append(os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC))
        return status.st_blocks * BLOCK

    def _free(self) -> None:
        while self._large:
            os.close(self._large.pop())

    def _pool(self, digest: Digest) -> Identity | None:
        try:
            status = self._store.blobs.stat(digest)
        except NotFound:
            return None
        return status.st_ino, status.st_ctime_ns, status.st_nlink
