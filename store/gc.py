"""Garbage collection: blobs that no index mentions, nobody leased, and nothing touched lately.

Memory grows with the number of names below every `blobs`. On doubt a blob is kept: what an
index that cannot be understood needs is unknown, so that nothing is removed then.
"""

from __future__ import annotations

import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from ..oci.digest import Digest
from ..oci.errors import InvalidContent, NotFound
from .leases import Held
from .roots import Roots
from .store import Store

GRACE = 3600.0  # seconds; as long as the promise of a mount
BATCH = 128  # blobs for which the lock is held once: some milliseconds, on slow disks 0.2 s
SPARE_GRACE = 60.0  # seconds; a file that is about to replace another needs milliseconds

_BLOCK = 512  # bytes; the unit of st_blocks


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


@dataclass(slots=True)
class _Names:
    """The files that stand for one blob: the pool's, and those of layouts."""

    pool: os.stat_result | None = None
    links: dict[PurePosixPath, os.stat_result] = field(
        default_factory=dict[PurePosixPath, os.stat_result]
    )

    @property
    def files(self) -> list[os.stat_result]:
        return [*self.links.values(), *([self.pool] if self.pool else [])]


@dataclass(frozen=True, slots=True)
class _Candidate:
    """Names of a blob that may go."""

    digest: Digest
    names: _Names


_Rule = Callable[[_Candidate], bool]


class Collector:
    """One look at a store, and removals that look again. Not thread-safe.

    What others do meanwhile is seen: each batch is removed with the store's lock held, after
    the indexes that changed were read again, and while nobody can take a lease.
    """

    def __init__(
        self, store: Store, *, grace: float = GRACE, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._before = clock() - grace
        self._spares_before = clock() - max(grace, SPARE_GRACE)
        self._roots = Roots(store)

    def collect(self, *, dry_run: bool = False) -> Collected:
        """Remove what nobody needs: first names in layouts, then blobs of the pool.

        Raises:
            InvalidContent: an index is malformed, or lacks a manifest. What it needs is
                unknown, so nothing is removed.
            Busy: another process holds the store.
        """
        self._roots.refresh()
        needed = self._roots.all()
        candidates: list[_Candidate] = []
        recent = 0
        for digest, names in self._scan().items():
            useless = {n: s for n, s in names.links.items() if digest not in self._roots.at(n)}
            old = {n: status for n, status in useless.items() if self._is_old(status, n)}
            pool = names.pool if digest not in needed else None
            if pool is not None and (len(old) < len(names.links) or not self._is_old(pool)):
                pool = None
            if old or pool is not None:
                candidates.append(_Candidate(digest, _Names(pool, old)))
            elif useless or (names.pool is not None and digest not in needed):
                recent += 1
        removed = self._remove(candidates, _mentioned, dry_run=dry_run)
        if not dry_run:
            self._store.blobs.discard_spares(self._spares_before)
            self._forget_origins()
        return removed + Collected(recent=recent)

    def evictable(self) -> dict[Digest, int]:
        """Return the layers of the pool that nothing touched lately, with their sizes."""
        self._roots.refresh()
        mentions = self._roots.all()
        return {
            digest: size
            for digest, size in mentions.layers.items()
            if digest not in mentions.others and self._is_evictable(digest, size)
        }

    def evict(self, digests: Collection[Digest], *, dry_run: bool = False) -> Collected:
        """Drop layers although images mention them, which become sparse.

        That somebody else has them is the caller's to know. Manifests and configs stay.

        Raises:
            InvalidContent: an index is malformed, or lacks a manifest.
            Busy: another process holds the store.
        """
        self._roots.refresh()
        scanned = self._scan()
        candidates = [
            _Candidate(digest, scanned[digest])
            for digest in digests
            if digest in scanned and all(map(self._is_old, scanned[digest].files))
        ]
        return self._remove(candidates, _indispensable, dry_run=dry_run)

    def _scan(self) -> dict[Digest, _Names]:
        found: dict[Digest, _Names] = {}
        for name in self._roots.names:
            with suppress(NotFound, InvalidContent):  # it was removed, or is no directory any more
                for digest, status in self._store.layout(name).linked():
                    if stat.S_ISREG(status.st_mode):
                        found.setdefault(digest, _Names()).links[name] = status
        for digest in self._store.blobs:
            try:
                found.setdefault(digest, _Names()).pool = self._store.blobs.stat(digest)
            except NotFound:
                continue  # removed since it was listed
        return found

    def _is_old(self, status: os.stat_result, name: PurePosixPath | None = None) -> bool:
        """Tell whether a file, and the layout that has it, are as they were before the grace."""
        changed = self._roots.changed(name) if name is not None else 0.0
        return max(status.st_ctime, changed) < self._before

    def _is_evictable(self, digest: Digest, size: int) -> bool:
        try:
            status = self._store.blobs.stat(digest)
        except NotFound:
            return False
        return status.st_size == size and self._is_old(status)

    def _remove(
        self, candidates: Iterable[_Candidate], rule: Callable[[Roots], _Rule], *, dry_run: bool
    ) -> Collected:
        """Remove names, the small ones first: manifests before layers.

        Whoever still knew the image then finds nothing of it, rather than a half.
        """
        ordered = sorted(candidates, key=lambda c: (c.names.files[0].st_size, c.digest))
        if dry_run:
            leased, is_needed = self._store.leases.held(), rule(self._roots)
            return _sum(self._fate(candidate, leased, is_needed) for candidate in ordered)
        if ordered:
            self._roots.settle()  # a millisecond a layout, which nobody need wait for
        return _sum(
            self._remove_batch(ordered[at : at + BATCH], rule)
            for at in range(0, len(ordered), BATCH)
        )

    def _remove_batch(self, batch: list[_Candidate], rule: Callable[[Roots], _Rule]) -> Collected:
        with self._store.lock.held():
            self._roots.refresh()
            self._roots.settle()
            is_needed = rule(self._roots)

            def remove(leased: Held) -> Collected:
                removed = Collected()
                for candidate in batch:
                    fate = self._fate(candidate, leased, is_needed)
                    if fate.blobs or fate.links:
                        self._unlink(candidate)
                    removed += fate
                return removed

            return self._store.leases.while_fixed(remove)

    def _fate(self, candidate: _Candidate, leased: Held, is_needed: _Rule) -> Collected:
        """Return what becomes of a candidate as things are now."""
        if candidate.digest in leased:
            return Collected(leased=1)
        if is_needed(candidate):
            return Collected()
        if not self._is_as_it_was(candidate):
            return Collected(recent=1)
        names = candidate.names
        files = Counter((file.st_dev, file.st_ino) for file in names.files)
        sizes = {(f.st_dev, f.st_ino): (f.st_nlink, f.st_blocks * _BLOCK) for f in names.files}
        freed = sum(
            size for inode, (links, size) in sizes.items() if files[inode] == links
        )  # others may have the file by names that are not ours
        return Collected(int(names.pool is not None), len(names.links), freed)

    def _is_as_it_was(self, candidate: _Candidate) -> bool:
        """Tell whether nobody touched the files since they were seen: a new link would show."""
        digest, names = candidate.digest, candidate.names
        for name, before in names.links.items():
            now = self._store.layout(name).own(digest)
            if now is None or _identity(now) != _identity(before):
                return False
        if names.pool is None:
            return True
        try:
            return _identity(self._store.blobs.stat(digest)) == _identity(names.pool)
        except NotFound:
            return False

    def _unlink(self, candidate: _Candidate) -> None:
        for name in candidate.names.links:
            self._store.layout(name).unlink(candidate.digest)
        if candidate.names.pool is not None:
            self._store.blobs.delete(candidate.digest)

    def _forget_origins(self) -> None:
        """Forget whence blobs were left out that no image needs, unless images just changed."""
        if not self._store.remotes.are_used:
            return
        with self._store.lock.held():
            self._roots.refresh()
            if all(self._roots.changed(name) < self._before for name in self._roots.names):
                self._store.remotes.retain(self._roots.all().layers)


def _mentioned(roots: Roots) -> _Rule:
    """Tell of candidates whether an index mentions what was garbage a moment ago."""
    needed = roots.all()

    def is_needed(candidate: _Candidate) -> bool:
        digest, names = candidate.digest, candidate.names
        if names.pool is not None:
            return digest in needed
        return any(digest in roots.at(name) for name in names.links)

    return is_needed


def _indispensable(roots: Roots) -> _Rule:
    """Tell of candidates whether they are more than layers."""
    others = roots.all().others
    return lambda candidate: candidate.digest in others


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_ino, status.st_ctime_ns


def _sum(parts: Iterable[Collected]) -> Collected:
    total = Collected()
    for part in parts:
        total += part
    return total
