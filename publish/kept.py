"""An image of the store that stays whole for a while, whatever becomes of its name."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from ..oci.descriptor import Descriptor
from ..oci.errors import Busy, NotFound
from ..oci.graph import walk
from ..store.leases import Leases
from .source import Blob, Source, read_document

TRIES = 10  # each of which means that the name got another image within a millisecond


@contextmanager
def kept(source: Source, leases: Leases) -> Generator[KeptSource]:
    """Yield the image that a name of the store means now, of which nothing is collected meanwhile.

    Between reading a name and leasing what it means, the name may get another image, and a
    collection without grace may take away any part of the one before: its layers would look
    like those that somebody left out on purpose. What the name still means once it is leased
    has all that it had.

    Raises:
        NotFound: the image, or a manifest of it, is absent.
        InvalidContent: it is malformed.
        Busy: the name kept getting other images.
    """
    for left in reversed(range(TRIES)):
        try:
            root = source.resolve()
            nodes = walk(root, lambda descriptor: read_document(source, descriptor))
            digests = [node.descriptor.digest for node in nodes]
        except NotFound:
            if not left:
                raise
            continue
        with leases.keeping(digests):
            if _means(source, root):
                yield KeptSource(source, root)
                return
    raise Busy(f"the image was replaced {TRIES} times while it was looked at")


class KeptSource:
    """An image whatever its name means by now. Thread-safe."""

    sparse = True

    def __init__(self, source: Source, root: Descriptor) -> None:
        self._source = source
        self._root = root

    def resolve(self) -> Descriptor:
        """Return the root as it was."""
        return self._root

    def open(self, descriptor: Descriptor) -> Blob:
        """Open a blob of the image; the caller closes it."""
        return self._source.open(descriptor)


def _means(source: Source, root: Descriptor) -> bool:
    try:
        return source.resolve() == root
    except NotFound:
        return False
