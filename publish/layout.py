"""Image layouts: the store as source and sink, and any layout directory as source.

Source: image-spec, image-layout.md.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..oci.descriptor import REF_NAME, Descriptor
from ..oci.digest import Digest, new_hash
from ..oci.document import MAX_DOCUMENT
from ..oci.errors import DigestMismatch, InvalidContent, NotFound
from ..oci.graph import walk
from ..oci.image_layout import INDEX, blob_path
from ..oci.manifest import Index
from ..oci.platform import Platform
from ..oci.reference import Reference
from ..store.layout import Layout
from ..store.reading import open_inside
from .sink import Action, Image, check_name
from .source import Blob, Source, select_platform

if TYPE_CHECKING:
    from ..store.store import Store

_CANNOT_LINK = {errno.EPERM, errno.EXDEV, errno.EMLINK}
_READ_ONLY = 0o444
_REF_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/+-]*")
_MAX_NAMES = 10  # in one message


class LayoutSource:
    """One image of a layout directory that anybody may have written.

    Files may be symbolic links to others inside the directory. Thread-safe.
    """

    sparse = True

    def __init__(self, path: Path, name: str = "", platform: Platform | None = None) -> None:
        self._path = path
        self._name = name
        self._platform = platform

    def resolve(self) -> Descriptor:
        """Return the image that the name selects, see `select`."""
        root = select(self.index(), self._name, str(self._path), self._platform)
        return select_platform(self, root, self._platform)

    def index(self) -> Index:
        """Return what `index.json` says.

        Raises:
            NotFound: there is none.
            InvalidContent: it is malformed, or no regular file inside the directory.
        """
        try:
            file = open_inside(self._path / INDEX, self._path)
        except FileNotFoundError:
            raise NotFound(f"an image layout at {self._path}") from None
        with open(file, "rb") as stream:
            raw = stream.read(MAX_DOCUMENT + 1)
        return Index.parse(raw, f"{self._path / INDEX}")

    def open(self, descriptor: Descriptor) -> Blob:
        """Open a blob of the layout.

        Raises:
            NotFound: it is absent; `name` is its digest.
            InvalidContent: it is no regular file inside the directory, or has another size.
        """
        digest = descriptor.digest
        try:
            file = open_inside(self._path / blob_path(digest), self._path)
        except FileNotFoundError:
            raise NotFound(digest) from None
        return file_blob(file, descriptor)


class StoreSource:
    """One image of the store. Thread-safe."""

    sparse = True

    def __init__(self, layout: Layout, platform: Platform | None = None) -> None:
        self._layout = layout
        self._platform = platform

    def resolve(self) -> Descriptor:
        """Return what the layout's index mentions.

        Raises:
            NotFound: there is no layout.
            InvalidContent: it has several images.
        """
        root = select(self._layout.index(), "", str(self._layout.name), self._platform)
        return select_platform(self, root, self._platform)

    def open(self, descriptor: Descriptor) -> Blob:
        """Open a blob of the image.

        Raises:
            NotFound: it is absent; `name` is its digest.
            InvalidContent: it has another size.
        """
        return file_blob(self._layout.open(descriptor.digest), descriptor)


class StoreSink:
    """A name in the store."""

    sparse = True

    def __init__(self, store: Store, reference: Reference) -> None:
        self._store = store
        self._pool = store.blobs
        self._reference = reference

    def platform(self) -> None:
        """The store takes indexes."""

    def begin(self, image: Image) -> None:
        """Refuse content that cannot have this name.

        Raises:
            InvalidContent: the name is another digest.
        """
        check_name(self._reference, image.root)

    def has(self, descriptor: Descriptor) -> bool:
        """Tell whether the pool has the blob.

        Raises:
            InvalidContent: it has it with another size.
        """
        try:
            size = self._pool.stat(descriptor.digest).st_size
        except NotFound:
            return False
        if size != descriptor.size:
            raise InvalidContent(
                f"{descriptor.digest} has {size} bytes, its descriptor announces {descriptor.size}"
            )
        return True

    def put_blob(self, descriptor: Descriptor, source: Source) -> Action:
        """Take a blob into the pool, sharing the source's bytes where the file system can."""
        with source.open(descriptor) as blob:
            file = blob.file
            if blob.ingest is not None and blob.ingest.blobs is self._pool:
                blob.ingest.commit(descriptor.digest)
                return Action.SENT
            if file is not None and self._clone(descriptor, file):
                return Action.SENT
            if file is None or not self._never_changes(file):
                self._pool.add(blob, descriptor.digest, descriptor.size)
                return Action.SENT
            if self._link(blob, file):
                return Action.SENT
        with source.open(descriptor) as blob:
            self._pool.add(blob, descriptor.digest, descriptor.size)
        return Action.SENT

    def put_manifest(self, descriptor: Descriptor, raw: bytes) -> None:
        """Take a manifest into the pool."""
        self._pool.add([raw], descriptor.digest, descriptor.size)

    def tag(self, root: Descriptor) -> None:
        """Commit the layout."""
        self._store.put(self._reference, root)

    def losses(self) -> Sequence[str]:
        """The store keeps an image as it is."""
        return ()

    def _clone(self, descriptor: Descriptor, file: int) -> bool:
        with self._pool.ingest(descriptor.digest.algorithm) as ingest:
            if not ingest.clone(file):
                return False
            ingest.commit(descriptor.digest)
            return True

    def _never_changes(self, file: int) -> bool:
        """Tell whether a file is read-only for all, of root or this user, and where the pool is."""
        status = os.fstat(file)
        return (
            stat.S_IMODE(status.st_mode) == _READ_ONLY
            and status.st_uid in (0, os.geteuid())
            and status.st_dev == os.stat(self._pool.path).st_dev
        )

    def _link(self, blob: Blob, file: int) -> bool:
        """Make such a file the blob; its mode is not touched, since it has other names."""
        digest = blob.descriptor.digest
        running = new_hash(digest.algorithm)
        for chunk in blob:
            running.update(chunk)
        actual = Digest(digest.algorithm, running.hexdigest())
        if actual != digest:
            raise DigestMismatch(digest, actual)
        try:
            self._pool.accept(file, digest)
        except OSError as error:
            if error.errno not in _CANNOT_LINK:
                raise
            return False
        return True


def contents(layout: Layout) -> frozenset[Digest]:
    """Return the digests of all that the images of a layout consist of, present or not."""
    return frozenset(
        node.descriptor.digest
        for root in layout.index().manifests
        for node in walk(root, layout.read)
    )


def select(index: Index, name: str, where: str, platform: Platform | None = None) -> Descriptor:
    """Return the entry of an `index.json` that is called `name`, or the only one.

    A name is the value of `org.opencontainers.image.ref.name`, or `@` and the
    position. Of several entries that match, `platform` chooses one.

    Raises:
        NotFound: no entry is meant.
        InvalidContent: several are.
    """
    entries = index.manifests
    if name.startswith("@"):
        number = name[1:]
        found = [entry for position, entry in enumerate(entries) if number == str(position)]
    elif name:
        found = [entry for entry in entries if entry.annotations.get(REF_NAME) == name]
    else:
        found = list(entries)
    if len(found) > 1 and platform is not None:
        found = [e for e in found if e.platform is None or platform.runs(e.platform)]
    if not found:
        raise NotFound(f"{name or 'an image'} in {where} (there: {_named(entries)})")
    if len({entry.digest for entry in found}) > 1:
        raise InvalidContent(f"{where} has several images, choose one: {_named(found)}")
    return found[0]


def check_ref_name(name: str) -> None:
    """Refuse what cannot be the name of an image in a layout.

    Source: image-spec, annotations.md, `org.opencontainers.image.ref.name`.

    Raises:
        InvalidContent: it has other characters, or begins like a position (`@0`).
    """
    if _REF_NAME.fullmatch(name) is None:
        raise InvalidContent(f"{name[:200]!r} is no name of an image in a layout")


def _named(entries: Sequence[Descriptor]) -> str:
    """Return what the first entries of an index can be selected by."""
    names = [entry.annotations.get(REF_NAME) or f"@{at}" for at, entry in enumerate(entries)]
    return ", ".join(names[:_MAX_NAMES] + ["…"] * (len(names) > _MAX_NAMES)) or "nothing"


def file_blob(file: int, descriptor: Descriptor) -> Blob:
    """Return an open file as a blob, which closes it.

    Raises:
        InvalidContent: it has another size; it is closed.
    """
    size = os.fstat(file).st_size
    if size != descriptor.size:
        os.close(file)
        raise InvalidContent(
            f"blob {descriptor.digest} has {size} bytes, {descriptor.size} were announced"
        )
    return Blob(open(file, "rb"), descriptor, file)
