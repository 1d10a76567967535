"""What a store remembers of one repository: for mounts, and instead of questions.

It only saves requests. So trouble with it is logged, and never ends a copy.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager

from ..oci.digest import Digest
from ..oci.graph import children
from ..oci.manifest import Index, Manifest
from ..store.index.locations import Found, Locations
from ..store.index.uploads import Uploads

log = logging.getLogger(__name__)

_NOWHERE: Mapping[Digest, tuple[str, ...]] = {}


class Provenance:
    """What is known of a repository and its neighbours. Thread-safe.

    Without `locations` only `elsewhere` is known, and nothing is remembered.
    """

    def __init__(
        self,
        locations: Locations | None,
        registry: str,
        repository: str,
        elsewhere: Mapping[Digest, tuple[str, ...]] = _NOWHERE,
    ) -> None:
        """Know what `locations` does, and which other repositories have which blobs."""
        self._locations = locations
        self._elsewhere = elsewhere
        self._registry = registry
        self._repository = repository
        self._seen: dict[Digest, tuple[Digest, ...]] = {}
        self._refused: set[str] = set()
        self._lock = threading.Lock()

    def find(self, digests: Iterable[Digest]) -> Found:
        """Return where these blobs were seen."""
        if self._locations is not None:
            with _harmless():
                found = self._locations.find(self._registry, self._repository, digests)
                return Found(found.here, {**found.elsewhere, **self._elsewhere})
        return Found({}, self._elsewhere)

    def saw(self, digest: Digest, document: Manifest | Index) -> None:
        """Note that the repository has a manifest, and so the blobs of that; see `save`."""
        blobs = children(document) if isinstance(document, Manifest) else ()
        with self._lock:
            self._seen[digest] = tuple(blob.digest for blob in blobs)

    def save(self) -> None:
        """Remember all that was seen, in one transaction."""
        with self._lock:
            seen, self._seen = self._seen, {}
        if seen and self._locations is not None:
            with _harmless():
                self._locations.add(self._registry, self._repository, seen)

    def lost(self, digests: Iterable[Digest]) -> None:
        """Forget that the repository has some blobs."""
        self._forget(self._repository, digests)

    def refused(self, repository: str, digest: Digest, *, always: bool) -> None:
        """Forget that another repository gives a blob away; with `always`, that it gives any."""
        self._forget(repository, [digest])
        if always:
            with self._lock:
                self._refused.add(repository)

    def gives(self, repository: str) -> bool:
        """Tell whether another repository has not refused to give any blob away."""
        with self._lock:
            return repository not in self._refused

    def _forget(self, repository: str, digests: Iterable[Digest]) -> None:
        if self._locations is not None:
            with _harmless():
                self._locations.forget(self._registry, repository, digests)


class UploadSessions:
    """The upload sessions of one repository that a store keeps. Thread-safe."""

    def __init__(self, uploads: Uploads, registry: str, repository: str) -> None:
        self._uploads = uploads
        self._place = registry, repository

    def note(self, digest: Digest, url: str) -> None:
        """Remember the session of a blob, or its latest URL."""
        with _harmless():
            self._uploads.note(*self._place, digest, url)

    def take(self, digest: Digest) -> str | None:
        """Return the session of a blob that nobody writes to."""
        with _harmless():
            return self._uploads.take(*self._place, digest)
        return None

    def leave(self, digest: Digest) -> None:
        """Let another process have it."""
        with _harmless():
            self._uploads.leave(*self._place, digest)

    def forget(self, digest: Digest) -> None:
        """Forget it: it ended."""
        with _harmless():
            self._uploads.forget(*self._place, digest)


@contextmanager
def _harmless() -> Generator[None]:
    try:
        yield
    except OSError as error:
        log.warning("what registries have is not remembered: %s", error)
