"""Garbage collection: blobs that no index mentions, nobody leased, and nothing touched lately.

On doubt a blob is kept: what an index that cannot be understood needs is unknown, so that
nothing is removed then. docs/adr/0014-collecting.md has the reasons.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import PurePosixPath

from ...oci.digest import HEX_LENGTHS, Digest
from ...oci.errors import NotFound
from ...oci.image_layout import BLOBS
from ..leases import DURATION
from ..remotes import Version
from ..store import Store
from .catalog import key
from .survey import Stray, Survey, directories, moment
from .sweep import Candidate, Collected, Link, Pace, Sweep

GRACE = 3600.0  # seconds; as long as the promise of a mount
SPARE_GRACE = 60.0  # seconds; a file that is about to replace another needs milliseconds

_SPARES = 100  # left-over names that go at once: less than 10 ms
_NS = 1_000_000_000  # in a second

Watch = Callable[[str], None]


class Collector:
    """Looks at a store, and removes what is useless. Not thread-safe.

    Others go on meanwhile. What they do is seen when it matters: each blob is removed with
    the store's lock held, while nobody can take a lease, and only if nobody touched it.
    """

    def __init__(
        self,
        store: Store,
        *,
        grace: float = GRACE,
        clock: Callable[[], float] = time.time,
        watch: Watch = lambda _: None,
    ) -> None:
        """Prepare to keep what changed within `grace` seconds; `watch` hears how far it is."""
        self._store = store
        self._grace = grace
        self._now = clock()
        self._watch = watch
        self._changes: dict[str, int] = {}

    def collect(self, *, dry_run: bool = False) -> Collected:
        """Remove what nobody needs: first names in layouts, then blobs of the pool.

        Raises:
            InvalidContent: an index is malformed, or lacks a manifest. What it needs is
                unknown, so nothing is removed.
            Busy: another process holds the store.
        """
        if dry_run:
            survey = self._look(steady=False)
            candidates, recent = self._useless(survey)
            return self._sweep().preview(candidates) + Collected(recent=recent)
        noted = self._store.remotes.version()  # before the images that need what it says are seen
        survey = self._look(steady=True)
        candidates, recent = self._useless(survey)
        removed = self._sweep().remove(candidates) + Collected(recent=recent)
        self._discard_spares(survey)
        self._forget_origins(survey, noted)
        return removed

    def evictable(self) -> dict[Digest, int]:
        """Return the layers of the pool that nothing touched lately, with their sizes."""
        survey = self._look(steady=False)
        catalog = survey.catalog
        numbers = [
            number
            for number, size in enumerate(catalog.sizes)
            if size >= 0 and not catalog.others[number] and catalog.mentioned[number]
        ]
        digests = catalog.digests(number for number in numbers if self._is_old(survey, number))
        return {
            digest: catalog.sizes[number]
            for number, digest in digests.items()
            if self._has_size(digest, catalog.sizes[number])
        }

    def evict(self, digests: Collection[Digest], *, dry_run: bool = False) -> Collected:
        """Drop layers although images mention them, which become sparse.

        That somebody else has them is the caller's to know. Manifests and configs stay.

        Raises:
            InvalidContent: an index is malformed, or lacks a manifest.
            Busy: another process holds the store.
        """
        survey = self._look(digests, steady=not dry_run)
        catalog = survey.catalog
        numbers = {catalog.number(key(digest.algorithm, digest.encoded)) for digest in digests}
        links = self._links(survey, numbers)
        candidates = [
            candidate
            for number, digest in catalog.digests(numbers).items()
            if not catalog.others[number]
            and self._is_old(survey, number)
            and all(self._is_link_old(survey, link) for link in links[number])
            for candidate in [self._candidate(survey, number, digest, links[number], pool=True)]
            if candidate is not None
        ]
        return self._sweep().preview(candidates) if dry_run else self._sweep().remove(candidates)

    def _look(self, wanted: Collection[Digest] = (), *, steady: bool) -> Survey:
        """Look at the store; what is to be removed afterwards must be older than the look."""
        began = moment(self._store) if steady else time.time_ns()
        survey = Survey(
            self._store, began, lambda count: self._watch(f"looked at {count:,} directories")
        )
        survey.take(wanted)
        self._changes.clear()
        return survey

    def _sweep(self) -> Sweep:
        return Sweep(
            self._store, lambda done, total: self._watch(f"removed {done:,} of {total:,} blobs")
        )

    def _useless(self, survey: Survey) -> tuple[list[Candidate], int]:
        """Return what may go, and how many blobs stay only because they are young."""
        links = self._links(survey)
        unmentioned = set(survey.unmentioned())
        candidates: list[Candidate] = []
        recent = 0
        for number, digest in survey.catalog.digests(unmentioned.union(links)).items():
            all_links = links.get(number, [])
            old = [link for link in all_links if self._is_link_old(survey, link)]
            pool = (
                number in unmentioned
                and len(old) == len(all_links)
                and self._is_old(survey, number)
                and (survey.is_steady or _is_known(survey, number, old))
            )
            candidate = self._candidate(survey, number, digest, old, pool=pool)
            if candidate is not None:
                candidates.append(candidate)
            else:
                recent += 1
        return candidates, recent

    def _links(
        self, survey: Survey, wanted: Collection[int] | None = None
    ) -> dict[int, list[Link]]:
        """Return the names of blobs in layouts that the survey found useless, or `wanted`."""
        found: dict[int, list[Link]] = defaultdict(list)
        digests = survey.catalog.digests({n for stray in survey.strays for n in stray.blobs})
        for stray in survey.strays:
            layout = self._store.layout(PurePosixPath(stray.name))
            for number in stray.blobs:
                if wanted is None or number in wanted:
                    status = layout.own(digests[number])
                    if status is not None:
                        found[number].append(Link(stray, status))
        return found

    def _candidate(
        self, survey: Survey, number: int, digest: Digest, links: list[Link], *, pool: bool
    ) -> Candidate | None:
        """Return what may be removed; None if it is nothing, or not what it was any more."""
        if not pool:
            return Candidate(digest, None, links[0].status, deque(links)) if links else None
        try:
            status = self._store.blobs.stat(digest)
        except NotFound:
            return None
        if (status.st_ino, status.st_ctime_ns, status.st_nlink) != survey.pool(number):
            return None
        return Candidate(digest, survey.pool(number), status, deque(links))

    def _is_old(self, survey: Survey, number: int) -> bool:
        """Tell whether the pool's file is as it was before the grace, and before the look."""
        inode, changed, _ = survey.pool(number)
        return inode != 0 and changed < self._before(survey)

    def _is_link_old(self, survey: Survey, link: Link) -> bool:
        """Tell whether a file, and the layout that has it, are as they were before the grace."""
        stray = link.stray
        # Whoever begins with an empty index is about to mention what is there.
        grace = max(self._grace, DURATION) if stray.is_empty else self._grace
        before = int((self._now - grace) * _NS)
        changed = max(link.status.st_ctime_ns, stray.index[1])
        return max(changed, self._changed(stray)) < before and changed < survey.began

    def _before(self, survey: Survey) -> int:
        return min(int((self._now - self._grace) * _NS), survey.began)

    def _changed(self, stray: Stray) -> int:
        """Return when names in a layout last came or went, in ns since the epoch."""
        if stray.name not in self._changes:
            path = self._store.layouts / stray.name
            times = [0]
            for directory in (path, *(path / BLOBS / algorithm for algorithm in HEX_LENGTHS)):
                with suppress(FileNotFoundError, NotADirectoryError):
                    times.append(os.stat(directory, follow_symlinks=False).st_mtime_ns)
            self._changes[stray.name] = max(times)
        return self._changes[stray.name]

    def _has_size(self, digest: Digest, size: int) -> bool:
        try:
            return self._store.blobs.stat(digest).st_size == size
        except NotFound:
            return False

    def _discard_spares(self, survey: Survey) -> None:
        before = self._now - max(self._grace, SPARE_GRACE)
        self._store.blobs.discard_spares(before)
        pace = Pace()
        for name in survey.spares:
            layout, count = self._store.layout(PurePosixPath(name)), _SPARES
            while count == _SPARES:
                with self._store.lock.held():
                    count = layout.discard_spares(before, _SPARES)
                pace.rest()

    def _forget_origins(self, survey: Survey, noted: Version) -> None:
        """Forget whence blobs were left out that no image needs, unless images just changed."""
        if not self._store.remotes.are_used:
            return
        before = self._before(survey)
        if any(entry is None or entry.at >= before for entry in directories(self._store)):
            return
        layers = (number for number, size in enumerate(survey.catalog.sizes) if size >= 0)
        self._store.remotes.retain(frozenset(survey.catalog.digests(layers).values()), noted)


def _is_known(survey: Survey, number: int, links: list[Link]) -> bool:
    """Tell whether all names of the pool's file are known: none is in a layout that moved."""
    inode, _, count = survey.pool(number)
    return count == 1 + sum(link.status.st_ino == inode for link in links)
