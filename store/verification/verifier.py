"""Reading the blobs of a store again, to see whether they still are what they were.

Nothing is repaired here, and nothing changed but what is noted in index.sqlite.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from ...oci.digest import HEX_LENGTHS, Digest, is_encoded
from ...oci.errors import NotFound
from ...oci.image_layout import BLOBS
from ...oci.wording import message_of
from ..index.checksums import Checksum
from ..spares import is_spare
from ..store import Store
from .findings import Finding, Kind, Severity
from .scrub import Examined, Pace, examine

JOBS = min(4, os.cpu_count() or 1)  # files read at once; one for each core, and disks have limits

_BATCH = 64  # blobs that a thread takes at once: handing over one costs more than hashing it
_BATCH_SIZE = 32 << 20  # bytes likewise
_NOTED = 5.0  # seconds after which what was found good is noted: an interruption loses these
_WRITABLE = 0o222

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Subset:
    """Which of the pool's blobs to read.

    Attributes:
        share: of the bytes, from 0 to 1: those that were not read for longest.
        size: bytes, likewise.
        part: `(n, m)` is the n-th of m parts, from 1, by digest.
    """

    share: float | None = None
    size: int | None = None
    part: tuple[int, int] | None = None

    def choose(self, plan: list[Planned]) -> list[Planned]:
        """Return those of a plan, which is sorted by when they were read."""
        if self.part is not None:
            number, parts = self.part
            return [p for p in plan if int(p.digest.encoded[:8], 16) % parts == number - 1]
        most = self.size or 0
        if self.share is not None:
            most = math.ceil(self.share * sum(planned.size for planned in plan))
        chosen, sum_ = list[Planned](), 0
        for planned in plan:
            if sum_ >= most:
                break
            chosen.append(planned)
            sum_ += planned.size
        return chosen


@dataclass(frozen=True, slots=True, order=True)
class Planned:
    """A blob of the pool that is to be read, sorted so that a disk's head need not jump."""

    verified: float
    inode: int
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class Choice:
    """What to read, and how.

    Attributes:
        digests: only these blobs; None means all.
        full: take the blob's own digest, whatever BLAKE3 is known.
        cached: believe the page cache.
        anew: do not go on with a run that was interrupted.
        jobs: files read at once.
    """

    digests: frozenset[Digest] | None = None
    subset: Subset | None = None
    full: bool = False
    cached: bool = False
    anew: bool = False
    jobs: int = JOBS

    @property
    def selection(self) -> str:
        """A word for what is to be read, the same whenever it is the same."""
        which = "all"
        if self.digests is not None:
            which = str(Digest.of(" ".join(sorted(map(str, self.digests))).encode()))
        return " ".join(map(str, (which, self.subset, self.full, self.cached)))


@dataclass(slots=True)
class Tally:
    """What was read.

    Attributes:
        blobs: files that were read.
        total: bytes that are to be read.
        skipped: blobs that an interrupted run had found good before.
        bad: files that are not what they are called, by digest.
        began: when the run began, which may have been interrupted since.
    """

    blobs: int = 0
    total: int = 0
    skipped: int = 0
    bad: dict[Digest, list[os.stat_result]] = field(
        default_factory=dict[Digest, "list[os.stat_result]"]
    )
    began: float = 0.0

    def is_bad(self, digest: Digest, file: os.stat_result) -> bool:
        """Tell whether a file was found not to be what it is called."""
        return any(os.path.samestat(file, bad) for bad in self.bad.get(digest, ()))


@dataclass(frozen=True, slots=True)
class _Read:
    """What came of one file."""

    finding: Finding | None = None
    good: Checksum | None = None
    bad: tuple[Digest, os.stat_result] | None = None
    skipped: bool = False
    status: os.stat_result | None = None


class Verifier:
    """One reading of the pool. Not thread-safe; it has threads of its own.

    What was found good is noted as it goes, so that a run which was interrupted goes on where it
    stood. A subset by size needs no such memory: it takes what was not read for longest.
    """

    def __init__(self, store: Store, choice: Choice, pace: Pace | None = None) -> None:
        self._store = store
        self._choice = choice
        self._pace = pace or Pace()
        self._notes_due: list[Checksum] = []
        self._noted = time.monotonic()
        self._lock = threading.Lock()
        self._notes = True
        self.tally = Tally()

    @property
    def pace(self) -> Pace:
        """How many bytes were read."""
        return self._pace

    def run(self) -> Generator[Finding]:
        """Yield what is wrong with the pool's blobs; bad ones are in `tally.bad`, too.

        Whoever closes this early ends the reading; the files that are under way are not noted.
        """
        plan = self._plan()
        subset = self._choice.subset
        if subset is not None:
            plan = subset.choose(plan)
        self.tally.total = sum(planned.size for planned in plan)
        resumes = subset is None or subset.part is not None
        self.tally.began = self._begin() if resumes else time.time()
        yield from self._strays()
        executor = ThreadPoolExecutor(self._choice.jobs, thread_name_prefix="verify")
        waiting: deque[Future[list[_Read]]] = deque()
        try:
            for batch in _batches(plan):
                waiting.append(executor.submit(self._read_batch, batch))
                if len(waiting) > 2 * self._choice.jobs:
                    yield from self._settle(waiting.popleft().result())
            while waiting:
                yield from self._settle(waiting.popleft().result())
        except BaseException:
            self._pace.stop()
            raise
        finally:
            executor.shutdown(cancel_futures=True)
            self._note()
        if resumes:
            self._careful(self._store.checksums.end, self._choice.selection)

    def examine_other(self, digest: Digest, file: int) -> Examined:
        """Read an open file that a layout has for a blob, other than the pool's.

        Raises:
            OSError: the disk refuses.
        """
        known = self._known([digest]).get(digest)
        found = examine(file, digest, known, self._pace, cached=self._choice.cached)
        self.tally.blobs += 1
        if not found.is_good:
            self.tally.bad.setdefault(digest, []).append(os.fstat(file))
        return found

    def _plan(self) -> list[Planned]:
        chosen = self._choice.digests
        # One image is verified without a look at all that is known of a large store.
        times = self._times() if chosen is None or self._choice.subset else {}
        plan: list[Planned] = []
        pool = self._store.path / BLOBS
        for digest in self._store.blobs if chosen is None else chosen:
            with suppress(FileNotFoundError):  # removed since it was listed, or absent
                status = os.lstat(f"{pool}/{digest.algorithm}/{digest.encoded}")
                verified = times.pop(str(digest), 0.0)
                plan.append(Planned(verified, status.st_ino, digest, status.st_size))
        if chosen is None:
            self._careful(self._store.checksums.forget, times)  # what is left of them is gone
        plan.sort()
        return plan

    def _strays(self) -> Iterator[Finding]:
        if self._choice.digests is not None:
            return
        for algorithm in (None, *HEX_LENGTHS):
            path = self._store.path / BLOBS / (algorithm or "")
            with suppress(FileNotFoundError):
                for name in sorted(os.listdir(path)):
                    known = is_encoded(algorithm, name) if algorithm else name in HEX_LENGTHS
                    if not known:
                        what = "a process that died left it" if is_spare(name) else "not a blob"
                        where = f"{BLOBS}/{algorithm}/{name}" if algorithm else f"{BLOBS}/{name}"
                        yield Finding(Severity.NOTE, Kind.STRAY, where, what)

    def _read_batch(self, batch: Sequence[Planned]) -> list[_Read]:
        known = self._known([planned.digest for planned in batch])
        return [self._read(p.digest, known.get(p.digest)) for p in batch]

    def _read(self, digest: Digest, known: Checksum | None) -> _Read:
        where = f"{BLOBS}/{digest.algorithm}/{digest.encoded}"
        try:
            file = self._store.blobs.open(digest)
        except NotFound:
            return _Read()  # removed since it was listed
        except OSError as error:
            if error.errno == errno.ELOOP:
                return _Read(_error(Kind.BAD_BLOB, where, "a symbolic link, not a file", digest))
            return _Read(_error(Kind.UNREADABLE_BLOB, where, message_of(error), digest))
        try:
            status = os.fstat(file)
            if known is not None and known.is_of(status) and known.verified >= self.tally.began:
                return _Read(skipped=True)
            trusted = None if self._choice.full else known
            found = examine(file, digest, trusted, self._pace, cached=self._choice.cached)
        except OSError as error:
            return _Read(_error(Kind.UNREADABLE_BLOB, where, message_of(error), digest))
        finally:
            os.close(file)
        return self._judged(where, digest, status, found)

    def _judged(self, where: str, digest: Digest, status: os.stat_result, found: Examined) -> _Read:
        if not found.is_good:
            return _Read(bad_blob(where, digest, status, found), bad=(digest, status))
        good = Checksum.of(digest, found.blake3, status)
        if not found.is_steady:
            words = "wrong or refused once, then right: memory, cable or controller may be bad"
            finding = Finding(Severity.WARNING, Kind.UNSTEADY_BLOB, where, words, digest)
            return _Read(finding, good, status=status)
        return _Read(None, good, status=status)

    def _settle(self, done: Iterable[_Read]) -> Iterator[Finding]:
        for read in done:
            if read.skipped:
                self.tally.skipped += 1
                continue
            self.tally.blobs += 1
            if read.good is not None:
                self._notes_due.append(read.good)
            elif read.finding is not None and read.finding.digest is not None:
                self._notes_due.append(Checksum.tried(read.finding.digest))
            if read.bad is not None:
                self.tally.bad.setdefault(read.bad[0], []).append(read.bad[1])
            if read.finding is not None:
                yield read.finding
            if read.status is not None and read.good is not None:
                yield from self._modes(read.good.digest, read.status)
        if time.monotonic() - self._noted > _NOTED:
            self._note()

    def _modes(self, digest: Digest, status: os.stat_result) -> Iterator[Finding]:
        where = f"{BLOBS}/{digest.algorithm}/{digest.encoded}"
        if status.st_mode & _WRITABLE:
            mode = f"mode {status.st_mode & 0o7777:04o}, expected 0444"
            yield Finding(Severity.NOTE, Kind.WRITABLE, where, mode, digest)
        owner = os.stat(self._store.path).st_uid
        if status.st_uid not in (owner, 0):
            words = f"owned by user {status.st_uid}, the store by {owner}"
            yield Finding(Severity.NOTE, Kind.OWNER, where, words, digest)

    def _begin(self) -> float:
        choice = self._choice
        try:
            return self._store.checksums.begin(choice.selection, anew=choice.anew)
        except OSError as error:
            self._cannot_note(error)
            return time.time()

    def _times(self) -> dict[str, float]:
        try:
            return self._store.checksums.times()
        except OSError as error:
            self._cannot_note(error)
            return {}

    def _known(self, digests: Collection[Digest]) -> dict[Digest, Checksum]:
        if not self._notes:
            return {}
        try:
            return self._store.checksums.find(digests)
        except OSError as error:
            self._cannot_note(error)
            return {}

    def _note(self) -> None:
        notes, self._notes_due = self._notes_due, []
        self._noted = time.monotonic()
        self._careful(self._store.checksums.add, notes)

    def _careful(self, note: Callable[[T], None], what: T) -> None:
        if self._notes:
            try:
                note(what)
            except OSError as error:
                self._cannot_note(error)

    def _cannot_note(self, error: OSError) -> None:
        """Go on without the database: it is a cache, and the store may be for reading only."""
        with self._lock:
            if self._notes:
                log.info("nothing is noted, so that an interrupted run begins anew: %s", error)
            self._notes = False


def bad_blob(where: str, digest: Digest, status: os.stat_result, found: Examined) -> Finding:
    """Return the finding about a file that is not what it is called, or cannot be read."""
    if found.refusal:
        return _error(Kind.UNREADABLE_BLOB, where, found.refusal, digest, status.st_size)
    words = f"has {status.st_size} bytes with digest {found.actual}"
    if not found.is_steady:
        words += ", and others each time it is read"
    return _error(Kind.BAD_BLOB, where, words, digest, status.st_size)


def _error(kind: Kind, where: str, detail: str, digest: Digest, size: int = 0) -> Finding:
    return Finding(Severity.ERROR, kind, where, detail, digest, size=size)


def _batches(plan: Iterable[Planned]) -> Iterator[list[Planned]]:
    batch, size = list[Planned](), 0
    for planned in plan:
        batch.append(planned)
        size += planned.size
        if len(batch) >= _BATCH or size >= _BATCH_SIZE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
