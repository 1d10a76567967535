"""Copying an image: children before parents, each digest once, the name last."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import InvalidContent, NotFound
from ..oci.graph import walk
from ..oci.platform import Platform
from .access import JOBS
from .crew import Crew, Stopped
from .sink import Action, Image, Sink
from .source import Blob, Source, read_document, select_platform

if TYPE_CHECKING:
    from ..store.leases import Leases

MAX_DOCUMENTS = 64 << 20  # bytes of all manifests and indexes of one image; they stay in memory

log = logging.getLogger(__name__)


class Progress(Protocol):
    """Hears how far a copy is; called by several threads at once."""

    def begins(self, image: Image, /) -> None:
        """Note what will be copied."""
        ...

    def moves(self, descriptor: Descriptor, done: int, /) -> None:
        """Note that `done` bytes of a blob are there.

        A blob that is sent again starts from 0 again.
        """
        ...

    def ends(self, descriptor: Descriptor, action: Action, /) -> None:
        """Note that nothing more will be done about a blob or manifest."""
        ...

    def stage(self, what: str, /) -> None:
        """Note what the copy does now, as in "asking what is there"; at the end, "done"."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one blob or manifest.

    Attributes:
        action: what was done.
        seconds: how long that took; of a sink that sends all at the end, no time.
    """

    descriptor: Descriptor
    action: Action
    seconds: float


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy did.

    Attributes:
        root: the manifest or index that was given the name.
        outcomes: one for each digest of the image, in the order in which they ended.
        losses: what of the image the sink did not keep.
        seconds: how long all of it took.
    """

    root: Descriptor
    outcomes: tuple[Outcome, ...]
    losses: tuple[str, ...]
    seconds: float

    @property
    def sent(self) -> int:
        """How many blobs and manifests were sent."""
        return self.count(Action.SENT)

    @property
    def present(self) -> int:
        """How many were there before."""
        return self.count(Action.PRESENT)

    @property
    def mounted(self) -> int:
        """How many the other side took from another of its repositories."""
        return self.count(Action.MOUNTED)

    @property
    def absent(self) -> int:
        """How many layers neither side has."""
        return self.count(Action.ABSENT)

    def count(self, action: Action) -> int:
        """Return how many blobs and manifests this was done to."""
        return sum(outcome.action is action for outcome in self.outcomes)

    def size(self, action: Action) -> int:
        """Return the bytes of those."""
        return sum(o.descriptor.size for o in self.outcomes if o.action is action)


def copy(
    source: Source,
    sink: Sink,
    *,
    jobs: int = JOBS,
    crew: Crew | None = None,
    progress: Progress | None = None,
    leases: Leases | None = None,
) -> Copied:
    """Copy the image of `source` to `sink`, which then has its name.

    Only what the sink lacks is read, apart from manifests. At most `jobs` blobs are
    under way at once, or as many as `crew` has jobs, over all its copies. With the
    `leases` of the store that one side is, garbage collection keeps the blobs of the
    image as long as this lasts. When this raises, the name is what it was before.

    Raises:
        NotFound: the image, or a part of it that must not be missing, is absent.
        InvalidContent: a part is not what its descriptor says, or malformed.
        Stopped: the crew was interrupted in another thread.
    """
    began = time.monotonic()
    crew = crew or Crew(jobs)
    tally = _Tally(crew, progress)
    tally.stage("reading the image")
    watched = _Watched(source, tally)
    found = read_image(source, sink.platform)
    root, image = found.root, replace(found, source=watched)
    digests = [node.descriptor.digest for node in image.nodes]
    with nullcontext() if leases is None else leases.keeping(digests):
        _copy(image, sink, crew, tally)
    copied = Copied(root, tally.outcomes(), tuple(sink.losses()), time.monotonic() - began)
    log.info(
        "copied %s: %d sent, %d bytes, %d present, %.1f s",
        root.digest,
        copied.sent,
        copied.size(Action.SENT),
        copied.present,
        copied.seconds,
    )
    return copied


def read_image(source: Source, platform: Callable[[], Platform | None]) -> Image:
    """Return the image of a source with all its manifests; of an index that for `platform`.

    Raises:
        NotFound: it, or a manifest of it, is absent.
        InvalidContent: a part is not what its descriptor says, or malformed.
    """
    root = source.resolve()
    if root.is_index:
        root = select_platform(source, root, platform())
    return Image(root, tuple(walk(root, _Documents(source))), source)


def _copy(image: Image, sink: Sink, crew: Crew, tally: _Tally) -> None:
    source = image.source
    tally.begins(image)
    tally.stage("asking what is there")
    sink.begin(image)
    optional = image.layers if source.sparse and sink.sparse else frozenset[Descriptor]()

    def put(descriptor: Descriptor) -> None:
        with tally.timed(descriptor) as done:
            if sink.has(descriptor):
                done(Action.PRESENT)
                return
            try:
                done(sink.put_blob(descriptor, source))
            except NotFound as error:
                if error.name != descriptor.digest or descriptor not in optional:
                    raise
                log.info("%s is absent: the image is sparse", descriptor.digest)
                done(Action.ABSENT)

    tally.stage("waiting for the other side")
    _in_parallel(sorted(image.blobs, key=_largest_first), put, crew, tally)
    for node in image.nodes:
        if node.document is None:
            continue
        with tally.timed(node.descriptor) as done:
            if sink.has(node.descriptor):
                done(Action.PRESENT)
            else:
                sink.put_manifest(node.descriptor, node.document.raw)
                done(Action.SENT)
    sink.tag(image.root)
    tally.tagged()
    tally.stage("done")


class _Documents:
    """Loads manifests, up to `MAX_DOCUMENTS` bytes in all."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._left = MAX_DOCUMENTS

    def __call__(self, descriptor: Descriptor) -> bytes:
        self._left -= descriptor.size
        if self._left < 0:
            raise InvalidContent(f"the manifests of one image have over {MAX_DOCUMENTS} bytes")
        return read_document(self._source, descriptor)


class _Tally:
    """Notes what threads did, and tells them to stop."""

    def __init__(self, crew: Crew, progress: Progress | None) -> None:
        self._lock = threading.Lock()
        self._crew = crew
        self._progress = progress
        self._outcomes: list[Outcome] = []
        self._read: set[Digest] = set()
        self._late: list[Outcome] = []
        self._failure: BaseException | None = None

    def is_stopped(self) -> bool:
        return self._failure is not None or self._crew.interrupted

    def fail(self, error: BaseException) -> None:
        """Stop the threads of this copy; the first failure is the one to be told."""
        with self._lock:
            self._failure = self._failure or error

    def check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def begins(self, image: Image) -> None:
        if self._progress is not None:
            self._progress.begins(image)

    def stage(self, what: str) -> None:
        if self._progress is not None:
            self._progress.stage(what)

    def watch(self, descriptor: Descriptor, done: int) -> None:
        if self.is_stopped():
            raise Stopped
        self._read.add(descriptor.digest)
        if self._progress is not None:
            self._progress.moves(descriptor, done)

    @contextmanager
    def timed(self, descriptor: Descriptor) -> Generator[Callable[[Action], None]]:
        """Yield what notes the action; its time begins now."""
        began = time.monotonic()

        def done(action: Action) -> None:
            outcome = Outcome(descriptor, action, time.monotonic() - began)
            late = self._is_late(outcome)
            with self._lock:
                self._outcomes.append(outcome)
                if late:
                    self._late.append(outcome)
            if self._progress is not None and not late:
                self._progress.ends(descriptor, action)

        yield done

    def tagged(self) -> None:
        """Note that the sink sent what it left for the end."""
        if self._progress is not None:
            for outcome in self._late:
                self._progress.ends(outcome.descriptor, outcome.action)

    def outcomes(self) -> tuple[Outcome, ...]:
        return tuple(self._outcomes)

    def _is_late(self, outcome: Outcome) -> bool:
        """Tell whether the sink, which sends all in one stream, has not read the blob yet."""
        descriptor = outcome.descriptor
        return (
            outcome.action is Action.SENT
            and not (descriptor.is_manifest or descriptor.is_index)
            and descriptor.digest not in self._read
        )


class _Watched:
    """A source whose blobs report their progress."""

    def __init__(self, source: Source, tally: _Tally) -> None:
        self._source = source
        self._tally = tally
        self.sparse = source.sparse

    def resolve(self) -> Descriptor:
        return self._source.resolve()

    def open(self, descriptor: Descriptor) -> Blob:
        blob = self._source.open(descriptor)
        blob.watch = lambda done: self._tally.watch(descriptor, done)
        return blob


def _largest_first(descriptor: Descriptor) -> int:
    return -descriptor.size


def _in_parallel(
    work: Sequence[Descriptor], do: Callable[[Descriptor], None], crew: Crew, tally: _Tally
) -> None:
    """Do all of `work` in as many threads as the crew has jobs; the first failure ends it."""
    pending = iter(work)
    lock = threading.Lock()

    def take() -> None:
        while not tally.is_stopped():
            with crew.slot:
                with lock:
                    descriptor = None if tally.is_stopped() else next(pending, None)
                if descriptor is None:
                    return
                try:
                    do(descriptor)
                except BaseException as error:  # raised below, in the thread that asked
                    tally.fail(error)

    crew.work([take] * min(crew.jobs, len(work)))
    tally.check()
