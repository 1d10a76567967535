"""An image in containerd as source: blobs come one by one, so that only what is missing is read."""

from __future__ import annotations

from ...oci.descriptor import REF_NAME, Descriptor
from ...oci.errors import NotFound
from ...oci.manifest import Index, parse_manifest
from ...oci.platform import Platform
from ...oci.reference import Reference
from ..source import Blob, select_platform
from .ctr import Ctr


class ContainerdSource:
    """One image of a namespace. Thread-safe.

    Attributes:
        sparse: false; containerd that discards layers it has unpacked cannot give them.
    """

    sparse = False

    def __init__(self, ctr: Ctr, name: str, platform: Platform | None = None) -> None:
        self._ctr = ctr
        self._name = name
        self._platform = platform

    def resolve(self) -> Descriptor:
        """Return the image with this name, as it is written or with Docker's defaults.

        Raises:
            NotFound: there is none, or only some platforms of it are there and none was chosen.
        """
        records = self._ctr.records()
        name = self._name if self._name in records else Reference.parse(self._name).canonical
        if name not in records:
            raise NotFound(f"{name} in {self._ctr.name}")
        record = records[name]
        raw = self._ctr.read(record.digest)
        root = Descriptor(record.media_type, record.digest, len(raw), {REF_NAME: name})
        if self._platform is None and root.is_index:
            self._check_platforms(root, raw)
        return select_platform(self, root, self._platform)

    def open(self, descriptor: Descriptor) -> Blob:
        """Open a blob; the caller closes it.

        Raises:
            NotFound: it is absent; `name` is its digest.
        """
        return Blob(self._ctr.open(descriptor.digest), descriptor)

    def _check_platforms(self, root: Descriptor, raw: bytes) -> None:
        """See that the images of an index are there: a pull leaves out other platforms."""
        index = parse_manifest(raw, root)
        assert isinstance(index, Index)
        content = self._ctr.content()
        if all(child.digest in content for child in index.manifests):
            return
        there = [child for child in index.manifests if child.digest in content]
        words = ", ".join(str(child.platform) for child in there if child.platform is not None)
        raise NotFound(
            f"all of {root.digest} in {self._ctr.name} "
            f"(there: {words or 'no platform'}; choose one with --platform)"
        )
