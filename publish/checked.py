"""A source that vouches for its blobs, for whoever keeps them without a look at their digests."""

from __future__ import annotations

from ..oci.descriptor import Descriptor
from ..oci.digest import Digest, new_hash
from ..oci.errors import DigestMismatch
from .source import Blob, Source


class CheckedSource:
    """A source each of whose blobs, read to its end, is what its descriptor says.

    A read that reaches the end of another blob raises DigestMismatch. Thread-safe as
    far as the source is.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.sparse = source.sparse

    def resolve(self) -> Descriptor:
        """Return what the source does."""
        return self._source.resolve()

    def open(self, descriptor: Descriptor) -> Blob:
        """Open a blob of the source; the caller closes it."""
        blob = self._source.open(descriptor)
        return Blob(_Checked(blob), descriptor, blob.file)


class _Checked:
    """A blob whose end is reached only if its digest is right."""

    def __init__(self, blob: Blob) -> None:
        self._blob = blob
        self._expected = blob.descriptor.digest
        self._hash = new_hash(self._expected.algorithm)

    def read(self, size: int, /) -> bytes:
        data = self._blob.read(size)
        self._hash.update(data)
        if not data:
            actual = Digest(self._expected.algorithm, self._hash.hexdigest())
            if actual != self._expected:
                raise DigestMismatch(self._expected, actual)
        return data

    def close(self) -> None:
        self._blob.close()
