"""The images of a store as archives that can be read anywhere, though nobody wrote them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import PurePosixPath

from ...oci.descriptor import Descriptor
from ...oci.digest import Digest
from ...oci.errors import NotFound
from ...store.layout import Layout
from ...store.reading import Portion
from ...store.store import Store
from ..copy import read_image
from ..layout import StoreSource
from ..sink import Image
from .archive import check_size
from .forms import DockerForm, Form, OciForm
from .tarstream import TarStream

FORMS: Mapping[str, Form] = {".docker.tar": DockerForm(), ".oci.tar": OciForm()}  # by ending

_ROOT = PurePosixPath()


@dataclass(frozen=True, slots=True)
class Archived:
    """An archive as it was when somebody looked.

    Attributes:
        index: the attributes of the index of its image.
        size: its length in bytes.
        digest: equal for archives with the same bytes; not that of the bytes.
    """

    index: os.stat_result
    size: int
    digest: Digest


class Shelf:
    """All images of a store, each as one archive of every form. Thread-safe.

    Paths are the names of images with the ending of a form, or those of directories with
    images. Where the store is one image alone, that is called by its last name. An archive has
    the bytes that publishing its image without a name writes.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def list(self, directory: PurePosixPath) -> Sequence[str]:
        """Return the names in a directory; an image that cannot be an archive has its, too.

        Raises:
            NotFound: there is none.
        """
        if not directory.parts and self._is_image(_ROOT):
            return [self._store.prefix.name + ending for ending in FORMS]
        found: set[str] = set()
        for name, is_image in self._store.layout(directory).directory.inside():
            found.update([name + ending for ending in FORMS] if is_image else [name])
        return sorted(found)

    def find(
        self, path: PurePosixPath, known: os.stat_result | None = None
    ) -> Archived | os.stat_result | None:
        """Return an archive as it is now, or the attributes of a directory.

        None if that archive's index still has the attributes `known`. Layers may be absent.

        Raises:
            NotFound: there is neither.
            InvalidContent: the image is malformed, or the form cannot hold it.
        """
        with suppress(NotFound):
            layout, form = self._split(path)
            index = layout.directory.index_status()
            if known is not None and _identity(known) == _identity(index):
                return None
            _, archive = _read(layout, form)
            return Archived(index, archive.size, archive.digest())
        return self._store.layout(path).directory.status()

    def lacking(self, path: PurePosixPath) -> tuple[PurePosixPath, Mapping[Digest, int]]:
        """Return the image of an archive, and the blobs that it lacks, with their sizes.

        Raises:
            NotFound: there is no such archive.
            InvalidContent: as `find`.
        """
        layout, form = self._split(path)
        image, _ = _read(layout, form)
        return layout.name, {d.digest: d.size for d in image.blobs if not _has(layout, d.digest)}

    def open(self, path: PurePosixPath) -> OpenArchive:
        """Open an archive as it is now; the caller closes it.

        Raises:
            NotFound: there is none, or it lacks a blob; `name` is its digest then.
            InvalidContent: as `find`, or a blob has another size than announced.
        """
        layout, form = self._split(path)
        image, archive = _read(layout, form)
        with ExitStack() as closing:
            files = {d.digest: _open(layout, d, closing) for d in image.blobs}
            return OpenArchive(archive, files, closing.pop_all())

    def _split(self, path: PurePosixPath) -> tuple[Layout, Form]:
        for ending, form in FORMS.items():
            name = path.name.removesuffix(ending)
            if name not in ("", path.name):
                return self._layout(path.with_name(name)), form
        raise NotFound(path)

    def _layout(self, name: PurePosixPath) -> Layout:
        if str(name) == self._store.prefix.name and self._is_image(_ROOT):
            name = _ROOT
        return self._store.layout(name)

    def _is_image(self, name: PurePosixPath) -> bool:
        try:
            self._store.layout(name).directory.index_status()
        except NotFound:
            return False
        return True


class OpenArchive:
    """An archive whose blobs are open: whatever becomes of its image, it stays as it is.

    Thread-safe.

    Attributes:
        digest: as in `Archived`.
    """

    def __init__(self, archive: TarStream, files: Mapping[Digest, int], closing: ExitStack) -> None:
        self._archive = archive
        self._files = files
        self._closing = closing
        self.digest = archive.digest()

    def pieces(self, offset: int, size: int) -> Iterator[bytes | Portion]:
        """Yield what `size` bytes from `offset` on consist of; there are fewer at the end."""
        for piece in self._archive.pieces(offset, size):
            if isinstance(piece, bytes):
                yield piece
            else:
                file = self._files[piece.blob.digest]
                yield Portion(file, piece.start, piece.stop - piece.start)

    def close(self) -> None:
        """Close the blobs; nobody reads any more."""
        self._closing.close()


def _read(layout: Layout, form: Form) -> tuple[Image, TarStream]:
    image = read_image(StoreSource(layout), form.platform)
    return image, form.archive(image)


def _has(layout: Layout, digest: Digest) -> bool:
    try:
        os.close(layout.open(digest))
    except NotFound:
        return False
    return True


def _open(layout: Layout, descriptor: Descriptor, closing: ExitStack) -> int:
    file = layout.open(descriptor.digest)
    closing.callback(os.close, file)
    check_size(os.fstat(file).st_size, descriptor)
    return file


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_ino, status.st_ctime_ns, status.st_size
