"""containerd's image store in Docker: an OCI layout without the blobs that the daemon has.

A load accepts an image whose blobs are nowhere as long as the layers are unpacked already,
says so in no way, and leaves an image that runs but can be neither pushed nor saved. So
a blob is left out only when an image that has it is wholly there, and what was loaded gets
its name only after the daemon has said that nothing of it is absent.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence

from ...oci.descriptor import REF_NAME, Descriptor
from ...oci.digest import Digest
from ...oci.document import MAX_DOCUMENT
from ...oci.errors import InvalidContent, NotFound, RegistryError
from ...oci.image_layout import INDEX, MARKER, MARKER_CONTENT, blob_path
from ...oci.manifest import ImageConfig, Index, Manifest, media_type_of, parse_manifest
from ...oci.reference import Reference
from ...store.blobs import BlobStore
from ..archives.layout_tar import IMAGE_NAME
from ..archives.tarstream import Entry, TarStream
from ..source import Source
from .engine import Engine, familiar
from .wanted import Wanted

_SINCE = (1, 44)  # API version of the first release where the store is no experiment
_WORTH = 16 << 20  # bytes of layers that take longer to load than thirty images to list

log = logging.getLogger(__name__)


class ContainerdStore:
    """The store that knows images by their manifest, and keeps blobs as they are.

    `pool` tells which blobs belong to a manifest that the daemon has; without it nothing
    is left out.
    """

    def __init__(self, engine: Engine, wanted: Wanted, pool: BlobStore | None) -> None:
        self._engine = engine
        self._wanted = wanted
        self._pool = pool
        self._blobs = (wanted.manifest.config, *wanted.manifest.layers)
        self._needed: frozenset[Digest] | None = None  # None: the image is there

    def lacking(self) -> frozenset[Digest]:
        """Return which blobs it has to be sent; none if it has the image.

        Raises:
            RegistryError: the daemon is too old.
        """
        if self._engine.api_version < _SINCE:
            words = "before Docker 25 containerd's image store is an experiment"
            raise RegistryError(self._engine.name, 0, (), words)
        root = self._wanted.root.digest
        names = {familiar(self._wanted.reference): self._wanted.there}
        if not self._wanted.is_named and (other := self._engine.image(str(root))) is not None:
            names |= dict.fromkeys(other.names[:1], other)
        names |= {name: image for image in self._wanted.kin for name in image.names[:1]}
        known: frozenset[Digest] = frozenset()
        for name in (name for name, image in names.items() if image is not None):
            known |= self._engine.complete(name)
        if root in known:
            return frozenset()
        needed = self._blobs_outside(known)
        if sum(blob.size for blob in needed) >= _WORTH:
            known = self._engine.complete(None)
            if root in known:
                return frozenset()
            needed = self._blobs_outside(known)
        # the config is small, and without it nothing is loaded
        self._needed = frozenset((self._wanted.manifest.config.digest, *(b.digest for b in needed)))
        return self._needed | {root}

    def prepare(self, layer: Descriptor, source: Source) -> None:
        """See that a layer is there to be sent."""
        source.open(layer).close()

    def load(self) -> None:
        """Send what is lacking under a name of our own, and give the image its name.

        When something vanished since `lacking`, everything is sent once.

        Raises:
            RegistryError: the daemon has not all of the image even then.
        """
        root = self._wanted.root.digest
        if self._needed is not None:
            loading = Reference("unfinished.invalid", "docker", root.encoded[:32])
            try:
                self._load(loading, self._needed)
                self._engine.tag(str(root), self._wanted.reference)
            finally:
                self._forget(loading)
        elif not self._wanted.is_named:
            self._engine.tag(str(root), self._wanted.reference)

    def losses(self) -> Sequence[str]:
        """The store keeps an image as it is."""
        return ()

    def _load(self, loading: Reference, needed: frozenset[Digest]) -> None:
        """Load the image so that all of it is there."""
        everything = frozenset(blob.digest for blob in self._blobs)
        if not everything <= needed:
            try:
                if self._send(loading, needed):
                    return
            except RegistryError as error:
                if "not found" not in error.message:
                    raise
            log.info("%s: blobs vanished, sending all", self._engine.name)
            for layer in self._wanted.manifest.layers:
                self.prepare(layer, self._wanted.source)
        if not self._send(loading, everything):
            words = f"{self._wanted.root.digest} was loaded, and is not complete"
            raise RegistryError(self._engine.name, 0, (), words)

    def _send(self, loading: Reference, needed: frozenset[Digest]) -> bool:
        """Load the image without other blobs, and tell whether the daemon then has all."""
        self._engine.load(TarStream(self._entries(loading, needed), self._wanted.source))
        return self._wanted.root.digest in self._engine.complete(familiar(loading))

    def _entries(self, loading: Reference, needed: frozenset[Digest]) -> Iterable[Entry]:
        root = self._wanted.root
        names = {IMAGE_NAME: str(loading), REF_NAME: loading.tag}
        described = Descriptor(root.media_type, root.digest, root.size, names)
        yield Entry.of(MARKER, MARKER_CONTENT)
        yield Entry.of(INDEX, Index.of([described]).raw)
        yield Entry.of(blob_path(root.digest), self._wanted.manifest.raw)
        blobs = {blob.digest: blob for blob in self._blobs if blob.digest in needed}
        for digest, blob in blobs.items():  # each once
            yield Entry.of(blob_path(digest), blob)

    def _forget(self, loading: Reference) -> None:
        try:
            self._engine.remove(loading)
        except RegistryError as error:
            log.warning("%s stays behind: %s", loading, error)

    def _blobs_outside(self, known: Iterable[Digest]) -> list[Descriptor]:
        """Return the image's blobs that those manifests, as far as the pool has them, lack."""
        manifests = [manifest for digest in known for manifest in self._manifests(digest)]
        contained = {blob.digest for manifest in manifests for blob in manifest.layers}
        return [blob for blob in self._blobs if blob.digest not in contained]

    def _manifests(self, digest: Digest) -> Iterator[Manifest]:
        """Yield the manifest of an image that the daemon has wholly.

        Of an index that is the one for the platform which the daemon shows.
        """
        document = self._parse(digest)
        if isinstance(document, Manifest):
            yield document
        if not isinstance(document, Index):
            return
        shown = self._engine.image(str(digest))
        for entry in document.manifests:
            manifest = self._parse(entry.digest)
            if isinstance(manifest, Manifest) and shown is not None:
                config = self._read(manifest.config.digest)
                if config is not None and ImageConfig.parse(config).diff_ids == shown.diff_ids:
                    yield manifest

    def _parse(self, digest: Digest) -> Manifest | Index | None:
        raw = self._read(digest)
        if raw is None:
            return None
        try:
            return parse_manifest(raw, Descriptor(media_type_of(raw), digest, len(raw)))
        except InvalidContent:
            return None  # no manifest of a kind that is known here

    def _read(self, digest: Digest) -> bytes | None:
        """Return a document of the pool, or None if it has none of that digest."""
        if self._pool is None:
            return None
        try:
            file = self._pool.open(digest)
        except NotFound:
            return None
        with open(file, "rb") as stream:
            raw = stream.read(MAX_DOCUMENT + 1)
        return raw if len(raw) <= MAX_DOCUMENT else None
