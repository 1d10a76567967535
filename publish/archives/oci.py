"""An image layout in a tar archive, as source; it is not unpacked."""

from __future__ import annotations

from collections.abc import Iterator

from ...oci.descriptor import Descriptor
from ...oci.document import MAX_DOCUMENT
from ...oci.errors import NotFound
from ...oci.graph import Node, walk
from ...oci.image_layout import INDEX, blob_path
from ...oci.manifest import Index
from ...oci.platform import Platform
from ..layout import select
from ..recognition import Recognition
from ..source import Blob, read_document, select_platform
from .archive import Archive, read_member

_MAX_MISSING = 10  # in one message


class OciArchiveSource:
    """One image of an image layout in a tar archive, which may lack what the store has.

    Thread-safe.
    """

    sparse = False

    def __init__(
        self,
        archive: Archive,
        recognition: Recognition,
        name: str = "",
        platform: Platform | None = None,
    ) -> None:
        self._archive = archive
        self._recognition = recognition
        self._name = name
        self._platform = platform
        self._root: Descriptor | None = None

    def resolve(self) -> Descriptor:
        """Return the image that the name selects, see `layout.select`.

        Raises:
            NotFound: there is none, or neither the archive nor the store has a part of it.
        """
        if self._root is None:
            root = select(self._index(), self._name, self._archive.name, self._platform)
            root = select_platform(self, root, self._platform)
            self._require(root)
            self._root = root
        return self._root

    def open(self, descriptor: Descriptor) -> Blob:
        """Open a blob of the archive, or of the store if it is not there.

        Raises:
            NotFound: neither has it; `name` is its digest.
            InvalidContent: it has another size.
        """
        try:
            return self._archive.open_blob(blob_path(descriptor.digest), descriptor)
        except NotFound:
            return self._recognition.open(descriptor)

    def nodes(self) -> Iterator[Node]:
        """Yield all that the layout consists of, see `graph.walk`."""
        for root in self._index().manifests:
            yield from walk(root, self._read)

    def _index(self) -> Index:
        what = f"{INDEX} of {self._archive.name}"
        return Index.parse(read_member(self._archive, INDEX, MAX_DOCUMENT), what)

    def _read(self, descriptor: Descriptor) -> bytes:
        return read_document(self, descriptor)

    def _require(self, root: Descriptor) -> None:
        """See that all of the image is there."""
        nodes = walk(root, self._read)
        missing = [str(n.descriptor.digest) for n in nodes if not self._has(n.descriptor)]
        if missing:
            names = ", ".join(missing[:_MAX_MISSING]) + ", …" * (len(missing) > _MAX_MISSING)
            raise NotFound(f"blobs of {self._archive.name} that the store does not have: {names}")

    def _has(self, descriptor: Descriptor) -> bool:
        try:
            self._archive.find(blob_path(descriptor.digest))
        except NotFound:
            return descriptor.digest in self._recognition.pool
        return True
