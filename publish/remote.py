"""Blobs that the store lacks, fetched from its remotes when somebody needs them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Self

from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import InvalidContent, NotFound, RegistryError, RegistryUnavailable
from ..oci.platform import Platform
from ..oci.reference import Reference
from ..store.layout import Layout
from ..store.lock import one_of_many
from ..store.remotes import RepositoryName
from ..store.store import Store
from .access import JOBS, Access
from .kept import kept
from .layout import StoreSink, StoreSource
from .sink import Action, Image
from .source import Blob, Source

if TYPE_CHECKING:
    from ..store.collection.collector import Collector
    from ..store.collection.sweep import Collected
    from .distribution.repository import Repository

PAUSE = 5.0  # seconds until a remote that failed is asked the same again
LOCK = "fill.lock"  # in the store; a byte of it for each blob that is being fetched

_ANY = "application/octet-stream"  # a registry is asked for blobs without their media type

log = logging.getLogger(__name__)


class Filler:
    """Brings absent blobs from the remotes of a store. Thread-safe, and safe among processes.

    Whoever wants a blob that another thread or process is fetching waits for that. A remote
    that failed is not asked the same again at once, so that many readers do not wait in turn.
    Connections and tokens are kept for the next blob, until the block is left or a remote
    fails.
    """

    def __init__(
        self,
        store: Store,
        access: Access | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self.leases = store.leases
        self._access = for_remotes(access or Access())
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: dict[tuple[RepositoryName, Digest | None], tuple[float, _Failure]] = {}
        self._opened: dict[RepositoryName, tuple[Repository, ExitStack]] = {}

    def close(self) -> None:
        """Close the connections that are not in use."""
        with self._lock:
            opened, self._opened = self._opened, {}
        for _, closing in opened.values():
            closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fill(self, digest: Digest, size: int) -> None:
        """Return once the pool has a blob of `size` bytes, verified.

        Raises:
            NotFound: no remote has it; `name` is its digest.
            RegistryUnavailable: none has it, and one gave no answer.
            RegistryError: likewise, and one refused.
            InvalidContent: likewise, and one has something else under its name.
        """
        if digest in self._store.blobs:
            return
        places = self._store.remotes.places(digest)
        if not places:
            raise NotFound(digest)
        with one_of_many(self._store.path / LOCK, int(digest.encoded[:15], 16)):
            if digest not in self._store.blobs:
                self._fetch(Descriptor(_ANY, digest, size), places)

    def _fetch(self, descriptor: Descriptor, places: tuple[RepositoryName, ...]) -> None:
        failures: list[_Failure] = []
        for place in places:
            if (failure := self._recent(place, descriptor.digest)) is None:
                failure = self._fetch_from(place, descriptor)
            if failure is None:
                return
            log.info("%s", failure)
            failures.append(failure)
        for kind in (RegistryUnavailable, RegistryError, InvalidContent):
            for failure in failures:
                if isinstance(failure, kind):
                    raise failure
        raise NotFound(descriptor.digest)

    def _fetch_from(self, place: RepositoryName, descriptor: Descriptor) -> _Failure | None:
        digest, began = descriptor.digest, self._clock()
        failure: _Failure
        scope: Digest | None = digest
        try:
            with self._repository(place).blob(descriptor) as blob:
                self._store.blobs.add(blob, digest, descriptor.size)
        except NotFound as error:
            failure = error
        except InvalidContent as error:
            failure = InvalidContent(f"{place} has no good {digest}: {error}")
        except RegistryUnavailable as error:
            scope = None  # whatever it is asked for
            failure = RegistryUnavailable(
                f"{digest} from {place}", error.status, error.codes, error.message
            )
        except RegistryError as error:
            failure = RegistryError(
                f"{digest} from {place}", error.status, error.codes, error.message
            )
        else:
            seconds = self._clock() - began
            log.info(
                "fetched %s from %s: %d bytes, %.1f s", digest, place, blob.descriptor.size, seconds
            )
            return None
        self._note(place, scope, failure, self._clock() - began)
        if isinstance(failure, RegistryError):
            self._leave(place)
        return failure

    def _repository(self, place: RepositoryName) -> Repository:
        """Return the repository of a remote, open for all threads."""
        from .distribution.hosts import open_repository  # slow to import, and seldom needed

        with self._lock:
            opened = self._opened.get(place)
        if opened is None:
            reference = Reference(place.registry, place.repository, "latest")
            with ExitStack() as closing:
                repository = closing.enter_context(open_repository(reference, self._access))
                with self._lock:
                    opened = self._opened.get(place)  # which another thread may have opened
                    if opened is None:
                        opened = self._opened[place] = repository, closing.pop_all()
        return opened[0]

    def _leave(self, place: RepositoryName) -> None:
        """Let the next one begin anew, with all that was configured meanwhile, and all tries."""
        with self._lock:
            opened = self._opened.pop(place, None)
        if opened is not None:
            opened[1].close()

    def _note(
        self, place: RepositoryName, digest: Digest | None, failure: _Failure, seconds: float
    ) -> None:
        now = self._clock()
        with self._lock:
            self._failures = {key: value for key, value in self._failures.items() if value[0] > now}
            self._failures[place, digest] = now + max(PAUSE, seconds), failure

    def _recent(self, place: RepositoryName, digest: Digest) -> _Failure | None:
        """Return why the same was refused a moment ago."""
        with self._lock:
            for scope in (digest, None):
                until, failure = self._failures.get((place, scope), (0.0, None))
                if failure is None or until <= self._clock():
                    continue
                if isinstance(failure, RegistryUnavailable):
                    return RegistryUnavailable(
                        f"{digest} from {place}", failure.status, failure.codes, failure.message
                    )
                return failure
        return None


_Failure = NotFound | InvalidContent | RegistryError


class FillingSource:
    """An image of the store, whose absent blobs are fetched when they are read. Thread-safe."""

    sparse = True

    def __init__(self, source: Source, layout: Layout, filler: Filler) -> None:
        self._source = source
        self._layout = layout
        self._filler = filler

    def resolve(self) -> Descriptor:
        """Return what the layout's index mentions."""
        return self._source.resolve()

    def open(self, descriptor: Descriptor) -> Blob:
        """Open a blob of the image, which then belongs to its layout.

        Raises:
            NotFound: neither the store nor a remote has it; `name` is its digest.
            InvalidContent: it has another size, or is not what its digest says.
            RegistryUnavailable: a remote gave no answer.
        """
        if self._layout.own(descriptor.digest) is None:
            fill_layout(self._filler, self._layout, descriptor.digest, descriptor.size)
        return self._source.open(descriptor)


@contextmanager
def store_source(
    store: Store, layout: Layout, platform: Platform | None = None, access: Access | None = None
) -> Generator[Source]:
    """Yield an image of the store; what it lacks is fetched from the store's remotes, if any.

    `access` is how another place, such as a destination, is reached: see `for_remotes`. It is the
    image that the name means now, and stays whole until the block is left: see `kept`.
    """
    with ExitStack() as closing:
        source: Source = StoreSource(layout, platform)
        if store.remotes.are_used:
            filler = closing.enter_context(Filler(store, access))
            source = FillingSource(source, layout, filler)
        yield closing.enter_context(kept(source, store.leases))


def fill_layout(filler: Filler, layout: Layout, digest: Digest, size: int) -> None:
    """Let the layout that mentions a blob have it, fetched unless the pool has it already."""
    with filler.leases.keeping([digest]):  # the pool has it, and the layout has not
        filler.fill(digest, size)
        with suppress(NotFound):  # the image was removed meanwhile
            layout.link(digest)


class LazySource:
    """An image of which a sink may leave layers out. Thread-safe."""

    sparse = True

    def __init__(self, source: Source) -> None:
        self._source = source

    def resolve(self) -> Descriptor:
        """Return the root."""
        return self._source.resolve()

    def open(self, descriptor: Descriptor) -> Blob:
        """Open a manifest or blob of the image; the caller closes it."""
        return self._source.open(descriptor)


class LazySink(StoreSink):
    """A name in the store for an image whose layers stay where they are until they are read."""

    def __init__(self, store: Store, reference: Reference, origin: RepositoryName) -> None:
        super().__init__(store, reference)
        self._origin = origin
        self._layers: frozenset[Descriptor] = frozenset()
        self._left: list[Digest] = []

    def begin(self, image: Image) -> None:
        """Learn which blobs are layers."""
        super().begin(image)
        self._layers = image.layers

    def put_blob(self, descriptor: Descriptor, source: Source) -> Action:
        """Take a config, and no layer.

        Raises:
            NotFound: it is a layer.
        """
        if descriptor in self._layers:
            self._left.append(descriptor.digest)
            raise NotFound(descriptor.digest)
        return super().put_blob(descriptor, source)

    def tag(self, root: Descriptor) -> None:
        """Commit the layout, once it is on disk where its layers are."""
        with self._store.lock.held():  # or a garbage collection between the two would forget it
            self._store.remotes.note_origin(self._origin, self._left)
            super().tag(root)


def evict(
    store: Store, collector: Collector, access: Access | None = None, *, dry_run: bool = False
) -> Collected:
    """Drop layers that a remote has, in their full size; origins of lazy images do not count.

    Raises:
        RegistryUnavailable: a remote gave no answer.
        RegistryError: a remote refused.
    """
    from concurrent.futures import ThreadPoolExecutor

    from .distribution.hosts import open_repository

    wanted, found = collector.evictable(), set[Digest]()
    for remote in store.remotes.list():
        left = [digest for digest in wanted if digest not in found]
        reference = Reference(remote.repository.registry, remote.repository.repository, "latest")
        with (
            open_repository(reference, for_remotes(access or Access())) as repository,
            ThreadPoolExecutor(JOBS, thread_name_prefix="evict") as executor,
        ):
            sizes = executor.map(repository.size_of_blob, left)
            pairs = zip(left, sizes, strict=True)
            found |= {digest for digest, size in pairs if size == wanted[digest]}
    return collector.evict(found, dry_run=dry_run)


def for_remotes(access: Access) -> Access:
    """Return how to reach remotes for somebody who reaches another place with `access`.

    What a user says of that place, credentials above all, is not said of the remotes.
    """
    return Access(authfile=access.authfile, timeout=access.timeout)
