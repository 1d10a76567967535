"""Copying an image: children before parents, each digest once, the name last."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from ..oci.descriptor import Descriptor
from ..oci.errors import InvalidContent, NotFound
from ..oci.graph import walk
from .access import JOBS
from .sink import Action, Image, Sink
from .source import Blob, Source, read_document, select_platform

MAX_DOCUMENTS = 64 << 20  # bytes of all manifests and indexes of one image; they stay in memory

log = logging.getLogger(__name__)


class Progress(Protocol):
    """Hears how far each blob is; called by several threads at once."""

    def __call__(self, descriptor: Descriptor, done: int, /) -> None:
        """Note that `done` bytes of a blob are there.

        A blob that need not be sent is there at once; one that is sent again
        starts from 0 again.
        """
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
    source: Source, sink: Sink, *, jobs: int = JOBS, progress: Progress | None = None
) -> Copied:
    """Copy the image of `source` to `sink`, which then has its name.

    Only what the sink lacks is read, apart from manifests. At most `jobs` blobs
    are under way at once. When this raises, the name is what it was before.

    Raises:
        NotFound: the image, or a part of it that must not be missing, is absent.
        InvalidContent: a part is not what its descriptor says, or malformed.
    """
    began = time.monotonic()
    tally = _Tally(progress)
    watched = _Watched(source, tally)
    root = source.resolve()
    if root.is_index and (platform := sink.platform()) is not None:
        root = select_platform(source, root, platform)
    image = Image(root, tuple(walk(root, _Documents(source))), watched)
    sink.begin(image)
    optional = image.layers if source.sparse and sink.sparse else frozenset[Descriptor]()

    def put(descriptor: Descriptor) -> None:
        with tally.timed(descriptor) as done:
            if sink.has(descriptor):
                done(Action.PRESENT)
                return
            try:
                done(sink.put_blob(descriptor, watched))
            except NotFound as error:
                if error.name != descriptor.digest or descriptor not in optional:
                    raise
                log.info("%s is absent: the image is sparse", descriptor.digest)
                done(Action.ABSENT)

    _in_parallel(sorted(image.blobs, key=_largest_first), put, jobs, tally.stop)
    for node in image.nodes:
        if node.document is None:
            continue
        with tally.timed(node.descriptor) as done:
            if sink.has(node.descriptor):
                done(Action.PRESENT)
            else:
                sink.put_manifest(node.descriptor, node.document.raw)
                done(Action.SENT)
    sink.tag(root)
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


class _Stopped(Exception):
    """Another thread failed, so this one need not go on."""


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

    def __init__(self, progress: Progress | None) -> None:
        self._lock = threading.Lock()
        self._progress = progress
        self._outcomes: list[Outcome] = []
        self.stop = threading.Event()

    def watch(self, descriptor: Descriptor, done: int) -> None:
        if self.stop.is_set():
            raise _Stopped
        if self._progress is not None:
            self._progress(descriptor, done)

    @contextmanager
    def timed(self, descriptor: Descriptor) -> Generator[Callable[[Action], None]]:
        """Yield what notes the action; its time begins now."""
        began = time.monotonic()

        def done(action: Action) -> None:
            outcome = Outcome(descriptor, action, time.monotonic() - began)
            with self._lock:
                self._outcomes.append(outcome)
            if action is not Action.ABSENT:
                self.watch(descriptor, descriptor.size)

        yield done

    def outcomes(self) -> tuple[Outcome, ...]:
        return tuple(self._outcomes)


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
    work: Sequence[Descriptor],
    do: Callable[[Descriptor], None],
    jobs: int,
    stop: threading.Event,
) -> None:
    """Do all of `work` in at most `jobs` threads; the first failure ends it."""
    pending = iter(work)
    lock = threading.Lock()
    failures: list[BaseException] = []

    def take() -> None:
        while not stop.is_set():
            with lock:
                descriptor = next(pending, None)
            if descriptor is None:
                return
            try:
                do(descriptor)
            except BaseException as error:  # raised below, in the thread that asked
                failures.append(error)
                stop.set()

    workers = min(jobs, len(work))
    if workers == 0:
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="copy") as executor:
        futures = [executor.submit(take) for _ in range(workers)]
        try:
            wait(futures)
        except BaseException:
            stop.set()
            raise
    for error in failures:
        if not isinstance(error, _Stopped):
            raise error
