"""An image in containerd as sink: an image layout streamed into `ctr images import`.

Blobs that an image of the namespace has are left out. An import with a blob missing
fails and leaves its image record behind, or even succeeds (with --no-unpack). So the
image has a name of its own until it is known to be complete; only then it gets its
name, in one step, since that replaces what a record stands for.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from ...oci.descriptor import IMAGE_CONFIGS, Descriptor
from ...oci.digest import Digest
from ...oci.errors import RegistryError
from ...oci.image_layout import INDEX, MARKER, MARKER_CONTENT
from ...oci.manifest import Index, Manifest
from ...oci.reference import Reference
from ..archives.layout_tar import IMAGE_NAME, NO_DIGESTS, layout_tar
from ..archives.tarstream import Entry, TarStream
from ..checked import CheckedSource
from ..sink import Action, Image, check_name, host_platform
from ..source import Source
from .ctr import Ctr

_INTERIM = "unfinished.invalid/"  # begins the names of images that are not yet complete
_VANISHED = "not found"  # how an import says that it lacks a blob

log = logging.getLogger(__name__)


class ContainerdSink:
    """A name in a namespace of containerd."""

    sparse = False

    def __init__(self, ctr: Ctr, reference: Reference) -> None:
        self._ctr = ctr
        self._reference = reference
        self._name = reference.canonical
        self._image: Image | None = None
        self._present = NO_DIGESTS
        self._unchanged = False

    def platform(self) -> None:
        """Containerd takes indexes."""

    def begin(self, image: Image) -> None:
        """Find out which blobs some image of the namespace has, so that they will stay."""
        check_name(self._reference, image.root)
        with ThreadPoolExecutor(1) as executor:
            listing = executor.submit(self._ctr.records)
            content = self._ctr.content()
            records = listing.result()
        self._image = image
        self._present = _reachable((record.digest for record in records.values()), content)
        self._unchanged = self._name in records and records[self._name].digest == image.root.digest

    def has(self, descriptor: Descriptor) -> bool:
        """Tell whether the namespace has it."""
        return descriptor.digest in self._present

    def put_blob(self, descriptor: Descriptor, source: Source) -> Action:
        """See that the blob is there to be sent."""
        source.open(descriptor).close()
        return Action.SENT

    def put_manifest(self, descriptor: Descriptor, raw: bytes) -> None:
        """Do nothing: `begin` has told."""

    def tag(self, root: Descriptor) -> None:
        """Send what the namespace lacks, and then give the image its name."""
        assert self._image is not None
        image = Image(root, self._image.nodes, CheckedSource(self._image.source))
        unpack = _can_unpack(image)
        if self._unchanged and self._is_complete(self._name, image, unpack=unpack):
            return
        interim = f"{_INTERIM}{self._name}"
        try:
            self._load(interim, image, unpack=unpack)
            self._ctr.load(_name_only(self._name, root, image.source), unpack=False)
        finally:
            self._forget(interim)

    def losses(self) -> Sequence[str]:
        """The content store of containerd keeps an image as it is."""
        return ()

    def _load(self, name: str, image: Image, *, unpack: bool) -> None:
        """Make a whole image of this name; with what others have, if that does."""
        names = {IMAGE_NAME: name}
        if not self._present.isdisjoint(descriptor.digest for descriptor in image.blobs):
            try:
                self._ctr.load(layout_tar(image, names, self._present), unpack=unpack)
                if self._is_complete(name, image, unpack=unpack):
                    return
            except RegistryError as error:
                if _VANISHED not in error.message:
                    raise
            log.info("%s: blobs vanished, sending all", self._ctr.name)
        self._ctr.load(layout_tar(image, names), unpack=unpack)
        if not self._is_complete(name, image, unpack=unpack):
            raise RegistryError(self._ctr.name, 0, (), f"{self._name} did not become complete")

    def _forget(self, interim: str) -> None:
        try:
            self._ctr.remove(interim)
        except RegistryError as error:
            log.warning("%s stays behind: %s", interim, error)

    def _is_complete(self, name: str, image: Image, *, unpack: bool) -> bool:
        """Tell whether a name stands for the whole image, unpacked if it can be.

        `images check` looks at the platform of this machine alone, so that does not do
        for an index.
        """
        if unpack:
            status = self._ctr.status(name)
            if status is None or (status.digest, status.ready) != (image.root.digest, True):
                return False
            if image.root.is_manifest:
                return True
        record = self._ctr.records().get(name)
        if record is None or record.digest != image.root.digest:
            return False
        content = self._ctr.content()
        return all(node.descriptor.digest in content for node in image.nodes)


def _name_only(name: str, root: Descriptor, source: Source) -> TarStream:
    """Return an archive that names what is there."""
    index = Index.of([replace(root, annotations={IMAGE_NAME: name})])
    return TarStream([Entry.of(MARKER, MARKER_CONTENT), Entry.of(INDEX, index.raw)], source)


def _reachable(
    roots: Iterable[Digest], content: Mapping[Digest, Iterable[Digest]]
) -> frozenset[Digest]:
    """Return what is there below these roots: the garbage collector leaves it alone."""
    found: set[Digest] = set()
    waiting = list(roots)
    while waiting:
        digest = waiting.pop()
        if digest in content and digest not in found:
            found.add(digest)
            waiting += content[digest]
    return frozenset(found)


def _can_unpack(image: Image) -> bool:
    """Tell whether it is a single image, or an index that has one for this machine."""
    if image.root.is_index:
        here = host_platform()
        platforms = (
            node.descriptor.platform for node in image.nodes if node.descriptor.is_manifest
        )
        return any(platform is not None and here.runs(platform) for platform in platforms)
    manifest = image.nodes[-1].document
    return isinstance(manifest, Manifest) and manifest.config.media_type in IMAGE_CONFIGS
