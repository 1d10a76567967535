"""An image layout in a tar file, as source; it is not unpacked: blobs are read where they lie."""

from __future__ import annotations

from ..oci.descriptor import Descriptor
from ..oci.document import MAX_DOCUMENT
from ..oci.errors import NotFound
from ..oci.manifest import Index
from ..oci.platform import Platform
from ..store.layout import BLOBS, INDEX
from .layout import select
from .source import Blob, select_platform
from .tarball import Tarball, member_blob


class OciArchiveSource:
    """One image of an image layout in a tar file. Thread-safe."""

    sparse = False

    def __init__(self, tar: Tarball, name: str = "", platform: Platform | None = None) -> None:
        self._tar = tar
        self._name = name
        self._platform = platform

    def resolve(self) -> Descriptor:
        """Return the image that the name selects, see `layout.select`."""
        index = Index.parse(self._tar.read(INDEX, MAX_DOCUMENT), f"{INDEX} of {self._tar.name}")
        root = select(index, self._name, self._tar.name, self._platform)
        return select_platform(self, root, self._platform)

    def open(self, descriptor: Descriptor) -> Blob:
        """Open a blob of the archive.

        Raises:
            NotFound: it is absent; `name` is its digest.
            InvalidContent: it has another size.
        """
        digest = descriptor.digest
        try:
            return member_blob(
                self._tar, f"{BLOBS}/{digest.algorithm}/{digest.encoded}", descriptor
            )
        except NotFound:
            raise NotFound(digest) from None
