"""Copying an image: children before parents, each digest once, the name last."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Protocol

from ..oci.descriptor import Descriptor
from ..oci.errors import InvalidContent, NotFound
from ..oci.graph import walk
from ..oci.manifest import Manifest
from .access import JOBS
from .sink import Image, Sink
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
class Copied:
    """What a copy did; manifests count like other blobs.

    Attributes:
        root: the manifest or index that was given the name.
        sent: blobs that were put; `sent_bytes` is their size.
        present: blobs that were there before; `present_bytes` is their size.
        absent: layers that neither side has, since the image is sparse.
    """

    root: Descriptor
    sent: int
    sent_bytes: int
    present: int
    present_bytes: int
    absent: int


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
    optional = _layers(image) if source.sparse and sink.sparse else frozenset[Descriptor]()

    def put(descriptor: Descriptor) -> None:
        if sink.has(descriptor):
            tally.note_present(descriptor)
            return
        try:
            sink.put_blob(descriptor, watched)
        except NotFound as error:
            if error.name != descriptor.digest or descriptor not in optional:
                raise
            log.info("%s is absent: the image is sparse", descriptor.digest)
            tally.note_absent()
        else:
            tally.note_sent(descriptor)

    _in_parallel(sorted(image.blobs, key=_largest_first), put, jobs, tally.stop)
    for node in image.nodes:
        if node.document is None:
            continue
        if sink.has(node.descriptor):
            tally.note_present(node.descriptor)
        else:
            sink.put_manifest(node.descriptor, node.document.raw)
            tally.note_sent(node.descriptor)
    sink.tag(root)
    copied = tally.result(root)
    log.info(
        "copied %s: %d sent, %d bytes, %d present, %.1f s",
        root.digest,
        copied.sent,
        copied.sent_bytes,
        copied.present,
        time.monotonic() - began,
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
    """Counts what threads did, and tells them to stop."""

    def __init__(self, progress: Progress | None) -> None:
        self._lock = threading.Lock()
        self._progress = progress
        self._sent: list[int] = []
        self._present: list[int] = []
        self._absent = 0
        self.stop = threading.Event()

    def watch(self, descriptor: Descriptor, done: int) -> None:
        if self.stop.is_set():
            raise _Stopped
        if self._progress is not None:
            self._progress(descriptor, done)

    def note_sent(self, descriptor: Descriptor) -> None:
        with self._lock:
            self._sent.append(descriptor.size)
        self.watch(descriptor, descriptor.size)

    def note_present(self, descriptor: Descriptor) -> None:
        with self._lock:
            self._present.append(descriptor.size)
        self.watch(descriptor, descriptor.size)

    def note_absent(self) -> None:
        with self._lock:
            self._absent += 1

    def result(self, root: Descriptor) -> Copied:
        return Copied(
            root,
            len(self._sent),
            sum(self._sent),
            len(self._present),
            sum(self._present),
            self._absent,
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


def _layers(image: Image) -> frozenset[Descriptor]:
    manifests = [node.document for node in image.nodes if isinstance(node.document, Manifest)]
    layers = {layer for manifest in manifests for layer in manifest.layers}
    return frozenset(layers - {manifest.config for manifest in manifests})


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
