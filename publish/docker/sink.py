"""A name in a Docker daemon as sink."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...oci.descriptor import Descriptor
from ...oci.digest import Digest
from ...oci.platform import Platform
from ...oci.reference import Reference
from ...store.blobs import BlobStore
from ..sink import Action, Image
from ..source import Source
from .engine import Engine, check_has_tag
from .wanted import ImageStore, Wanted


class DaemonSink:
    """A name in a daemon, whichever image store that has.

    Blobs go over in one stream, when the image is tagged. `pool` is where the image comes
    from, if that is a store; `kin` names images of the daemon that it has layers of.
    """

    sparse = False

    def __init__(
        self,
        engine: Engine,
        reference: Reference,
        pool: BlobStore | None = None,
        kin: Iterable[str] = (),
    ) -> None:
        check_has_tag(reference)
        self._engine = engine
        self._reference = reference
        self._pool = pool
        self._kin = kin
        self._store: ImageStore | None = None
        self._lacking: frozenset[Digest] = frozenset()
        self._from_index = False

    def platform(self) -> Platform:
        """Return what the daemon runs on."""
        self._from_index = True
        return self._engine.platform()

    def begin(self, image: Image) -> None:
        """Find out which layers the daemon lacks.

        Raises:
            InvalidContent: it is no image, or its config and its layers do not match.
            RegistryError: the daemon cannot take such an image.
        """
        there = self._engine.image(str(self._reference))
        kin = filter(None, map(self._engine.image, self._kin))
        wanted = Wanted.of(image, self._reference, there, kin)
        self._store = self._choose(wanted)
        self._lacking = self._store.lacking()

    def has(self, descriptor: Descriptor) -> bool:
        """Tell whether the daemon needs it for the image."""
        if descriptor.is_manifest:
            return not self._lacking
        return descriptor.digest not in self._lacking

    def put_blob(self, descriptor: Descriptor, source: Source) -> Action:
        """See that the blob is there to be sent, and in which form."""
        if self._store is not None:
            self._store.prepare(descriptor, source)
        return Action.SENT

    def put_manifest(self, descriptor: Descriptor, raw: bytes) -> None:
        """Do nothing: what the daemon takes of it is sent with the blobs."""

    def tag(self, root: Descriptor) -> None:
        """Send what the daemon lacks and the name, or only the name."""
        if self._store is not None:
            self._store.load()

    def losses(self) -> Sequence[str]:
        """Return what the daemon's image store drops."""
        lost = list(self._store.losses()) if self._store is not None else []
        return [*lost, "other platforms"] if self._from_index else lost

    def _choose(self, wanted: Wanted) -> ImageStore:
        """Return the store that the daemon has; asking for that takes 10 ms."""
        there = wanted.there.digest if wanted.there is not None else None
        is_classic = there == wanted.manifest.config.digest
        if there == wanted.root.digest or (not is_classic and self._engine.has_containerd_store()):
            from .snapshotter import ContainerdStore

            return ContainerdStore(self._engine, wanted, self._pool)
        from .classic import ClassicStore

        return ClassicStore(self._engine, wanted)
