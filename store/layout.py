"""One OCI image layout over the pool: its index, its blobs, and how they change.

Source: image-spec, image-layout.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import PurePosixPath

from ..oci.descriptor import Descriptor
from ..oci.digest import HEX_LENGTHS, Digest, is_encoded
from ..oci.document import MAX_DOCUMENT, parse_object, string
from ..oci.errors import DigestMismatch, InvalidContent, NotFound
from ..oci.graph import walk
from ..oci.image_layout import INDEX, LAYOUT_VERSION, MARKER, MARKER_CONTENT
from ..oci.manifest import ImageConfig, Index, Manifest
from ..oci.wording import quoted
from .blobs import BlobStore
from .disk import Disk
from .layout_directory import LayoutDirectory, is_begun
from .lock import Lock
from .reading import open_file

LAYOUTS = "layouts"  # the directory of a store that has all of them


class Layout:
    """A directory below the layout root that holds one image, or will.

    Reading needs no lock: `index.json` is replaced, never edited. Thread-safe.

    Attributes:
        name: its path below the layout root.
        directory: itself as a directory, which may hold others instead.
    """

    def __init__(
        self, root: int, name: PurePosixPath, blobs: BlobStore, disk: Disk, lock: Lock
    ) -> None:
        self.directory = LayoutDirectory(root, name, disk)
        self._blobs = blobs
        self._disk = disk
        self._lock = lock
        self.name = name

    def index(self) -> Index:
        """Return the committed index.

        Raises:
            NotFound: there is no layout here.
            InvalidContent: `index.json` is not an index, or over `MAX_DOCUMENT` bytes.
        """
        with self.directory.opened() as directory:
            try:
                file = open_file(INDEX, directory)
            except FileNotFoundError:
                raise NotFound(self.name) from None
        with open(file, "rb") as stream:
            raw = stream.read(MAX_DOCUMENT + 1)
        return Index.parse(raw, f"{INDEX} of {self.name}")

    def open(self, digest: Digest) -> int:
        """Return a file descriptor to read a blob of the pool, or of this layout alone.

        The caller closes it.

        Raises:
            NotFound: neither has it.
        """
        try:
            return self._blobs.open(digest)
        except NotFound:
            pass
        try:
            with self.directory.blobs(digest.algorithm) as blobs:
                return open_file(digest.encoded, blobs)
        except (NotFound, InvalidContent, FileNotFoundError):
            raise NotFound(digest) from None

    def read(self, descriptor: Descriptor) -> bytes:
        """Return the bytes of a manifest or config, checked against its descriptor.

        Raises:
            NotFound: the blob is absent.
            InvalidContent: it is over `MAX_DOCUMENT` bytes, or not what the descriptor says.
        """
        if descriptor.size > MAX_DOCUMENT:
            raise InvalidContent(
                f"{descriptor.digest} has {descriptor.size} bytes, "
                f"at most {MAX_DOCUMENT} are accepted"
            )
        with open(self.open(descriptor.digest), "rb") as stream:
            raw = stream.read(descriptor.size + 1)
        if len(raw) != descriptor.size:
            raise InvalidContent(
                f"{descriptor.digest} does not have the {descriptor.size} bytes "
                "that its descriptor announces"
            )
        if (actual := Digest.of(raw, descriptor.digest.algorithm)) != descriptor.digest:
            raise DigestMismatch(descriptor.digest, actual)
        return raw

    def config(self, manifest: Manifest) -> ImageConfig:
        """Return the configuration of an image."""
        return ImageConfig.parse(self.read(manifest.config), f"config {manifest.config.digest}")

    def linked(self) -> Iterator[tuple[Digest, os.stat_result]]:
        """Yield every blob that the layout has, with the attributes of its file."""
        for algorithm in HEX_LENGTHS:
            try:
                with (
                    self.directory.blobs(algorithm) as blobs,
                    os.scandir(blobs) as entries,
                ):
                    for entry in entries:
                        if is_encoded(algorithm, entry.name):
                            with suppress(FileNotFoundError):  # removed meanwhile
                                status = entry.stat(follow_symlinks=False)
                                yield Digest(algorithm, entry.name), status
            except NotFound:
                continue

    def reachable(self, index: Index) -> list[Descriptor]:
        """Return the blobs below `index` that the store holds, children before parents.

        Layers may be absent, since an image may be sparse; manifests and configs
        may not.

        Raises:
            NotFound: a manifest or config is absent; `name` is its digest.
            InvalidContent: something is malformed, or has another size than announced.
        """
        present: dict[Digest, Descriptor] = {}
        for root in index.manifests:
            for node in walk(root, self.read):
                descriptor = node.descriptor
                size = self._size(descriptor.digest)
                if isinstance(node.document, Manifest):
                    self._require(node.document.config)
                if size is None:
                    continue
                if size != descriptor.size:
                    raise InvalidContent(
                        f"{descriptor.digest} has {size} bytes, "
                        f"its descriptor announces {descriptor.size}"
                    )
                present[descriptor.digest] = descriptor
        return list(present.values())

    def commit(
        self, index: Index, *, existing: bool = False, sparse: bool = False
    ) -> list[Descriptor]:
        """Make `index` the layout's index, with links to all it reaches in the pool.

        When this returns the image survives power loss; before that, the old
        index is in force. With the empty index that a writer begins a layout with nothing would
        be lost, so nobody waits for the disk to have its name. `existing=True` changes only a
        directory that is there, and leaves `oci-layout` to whoever made that. `sparse=True` links
        no layer that only the pool has. Returns the blobs that the layout had not.

        Raises:
            NotFound: a manifest or config is absent; `name` is its digest.
            InvalidContent: the index or what it reaches is malformed.
            Busy: another process holds the store.
        """
        self._blobs.sync()
        with self._lock.held():
            reachable = self.reachable(index)  # what it finds cannot be removed until it is linked
            if sparse:
                left = self._not_own(index)
                reachable = [found for found in reachable if found.digest not in left]
            lasts = bool(index.manifests) or self._is_committed()
            with self.directory.opened(create=not existing, sync=lasts) as directory:
                self._disk.sweep(directory)
                if not existing and MARKER not in os.listdir(directory):
                    self._disk.put(directory, MARKER, MARKER_CONTENT)
                new: list[Descriptor] = []
                for algorithm in sorted({d.digest.algorithm for d in reachable}):
                    new += self._link_all(directory, algorithm, reachable)
                self._disk.put(directory, INDEX, index.raw)
                if lasts:
                    self._disk.sync(directory)
        return new

    def own(self, digest: Digest) -> os.stat_result | None:
        """Return the attributes of the layout's own file for a blob, whatever the pool has."""
        try:
            with self.directory.blobs(digest.algorithm) as blobs:
                return os.stat(digest.encoded, dir_fd=blobs, follow_symlinks=False)
        except (NotFound, InvalidContent, FileNotFoundError):
            return None

    def link(self, digest: Digest) -> None:
        """Link a blob that the pool got after the index which mentions it.

        Raises:
            NotFound: there is no layout here, or the pool does not have the blob.
            Busy: another process holds the store.
        """
        self._blobs.sync()
        with self._lock.held(), self.directory.opened() as directory:
            if not is_begun(directory):
                raise NotFound(self.name)
            with self.directory.blobs_of(directory, digest.algorithm, create=True) as names:
                self._blobs.link(digest, names, digest.encoded)
                self._disk.sync(names)

    def unlink(self, digest: Digest) -> None:
        """Take away the layout's own name for a blob; the caller holds the store's lock."""
        with (
            suppress(NotFound, InvalidContent),
            self.directory.blobs(digest.algorithm) as names,
        ):
            self._disk.unlink(names, digest.encoded)

    def discard_spares(self, before: float, limit: int) -> int:
        """Remove what was on its way to another name when its process died; return how many.

        `before` is in seconds since the epoch: what changed later may still get its name. No more
        than `limit` go at once: the caller holds the store's lock.
        """
        return self.directory.discard_spares(before, limit)

    def expel(self, digest: Digest, file: os.stat_result, directory: int, name: str) -> bool:
        """Move a bad file out of the layout, as `BlobStore.expel`; the caller holds the lock."""
        moved = False
        with (
            suppress(NotFound, InvalidContent),
            self.directory.blobs(digest.algorithm) as names,
        ):
            moved = self._disk.move(names, digest.encoded, file, directory, name)
            if moved:
                self._disk.sync(names)
        return moved

    def mark(self, content: bytes) -> None:
        """Replace the `oci-layout` file of a directory that is there.

        Raises:
            InvalidContent: the content is not one of a layout version that we know.
        """
        version = string(parse_object(content, MARKER), "imageLayoutVersion", MARKER)
        if version != LAYOUT_VERSION:
            raise InvalidContent(
                f"{MARKER} has layout version {quoted(version)}, not {LAYOUT_VERSION}"
            )
        with self._lock.held(), self.directory.opened() as directory:
            self._disk.put(directory, MARKER, content)
            self._disk.sync(directory)

    def remove(self) -> list[str]:
        """Remove the layout's own files and return the names of other entries that stay.

        The pool keeps the blobs. Directories that become empty go too, up to the root.
        When this returns the index does not come back after power loss. A removal
        that was interrupted can be done again.

        Raises:
            NotFound: there is no layout here.
            Busy: another process holds the store.
        """
        with self._lock.held():
            with self.directory.opened() as directory:
                if os.listdir(directory) and not is_begun(directory):
                    raise NotFound(self.name)
                self._disk.unlink(directory, INDEX)
                self._disk.sync(directory)  # from here on nothing mentions the blobs
                self.directory.empty(directory)
                left = sorted(os.listdir(directory))
                if left:
                    self._disk.sync(directory)
            self.directory.remove_empty()
        return left

    def _is_committed(self) -> bool:
        try:
            self.directory.index_status()
        except NotFound:
            return False
        return True

    def _require(self, descriptor: Descriptor) -> None:
        if self._size(descriptor.digest) is None:
            raise NotFound(descriptor.digest)

    def _size(self, digest: Digest) -> int | None:
        try:
            return self._blobs.stat(digest).st_size
        except NotFound:
            pass
        try:
            with open(self.open(digest), "rb") as stream:
                return os.fstat(stream.fileno()).st_size
        except NotFound:
            return None

    def _not_own(self, index: Index) -> set[Digest]:
        """Return the layers below `index` that the layout has no file of its own for."""
        documents = [node.document for root in index.manifests for node in walk(root, self.read)]
        manifests = (document for document in documents if isinstance(document, Manifest))
        layers = {layer.digest for manifest in manifests for layer in manifest.layers}
        return {digest for digest in layers if self.own(digest) is None}

    def _link_all(
        self, directory: int, algorithm: str, reachable: list[Descriptor]
    ) -> list[Descriptor]:
        """Give the layout all blobs of one algorithm, so that they survive power loss.

        Returns those that it had not.
        """
        with self.directory.blobs_of(directory, algorithm, create=True) as names:
            self._disk.sweep(names)
            before = set(os.listdir(names))
            own = [d for d in reachable if d.digest.algorithm == algorithm]
            for digest in (descriptor.digest for descriptor in own):
                if digest in self._blobs:
                    self._blobs.link(digest, names, digest.encoded)
                else:
                    self._keep(digest)
            self._disk.sync(names)
        return [descriptor for descriptor in own if descriptor.digest.encoded not in before]

    def _keep(self, digest: Digest) -> None:
        """Sync a file of this layout alone, from before the store knew it."""
        file = self.open(digest)
        try:
            self._disk.sync(file)
        finally:
            os.close(file)
