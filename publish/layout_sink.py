"""An image layout outside the store as sink: what `oci:DIR[:TAG]` names.

Source: image-spec, image-layout.md.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

from ..oci.descriptor import OCI_INDEX, REF_NAME, Descriptor
from ..oci.digest import Digest
from ..oci.document import MAX_DOCUMENT, Object, parse_object, string
from ..oci.errors import Busy, DigestMismatch, InvalidContent, OcistowError
from ..oci.graph import walk
from ..oci.image_layout import BLOBS, INDEX, LAYOUT_VERSION, MARKER, MARKER_CONTENT
from ..oci.manifest import Index
from ..oci.wording import quoted
from ..store.blobs import BlobStore
from ..store.disk import Disk, make_directory
from ..store.lock import TIMEOUT, take
from ..store.named_disk import disk_of
from ..store.output import replacing
from ..store.reading import digest_of_file, open_directory, open_file
from .checked import CheckedSource
from .layout import LayoutSource, check_ref_name
from .sink import Action, Image
from .source import Source, read_document

_EMPTY: Object = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
_FOR_ALL = 0o644  # the mode of what many users read

log = logging.getLogger(__name__)


class LayoutSink:
    """A name in a plain image layout, whose other images stay.

    Blobs are copies, or share their bytes with the store where the file system can; they
    are no hard links, since other tools write to what lies in a layout. A blob that is
    there is hashed before it is believed. Everything survives power loss before
    `index.json` mentions it.
    """

    def __init__(
        self,
        path: Path,
        name: str = "",
        *,
        alone: bool = False,
        trusted: bool = False,
        believed: frozenset[Digest] = frozenset(),
        pool: BlobStore | None = None,
        disk: Disk | None = None,
    ) -> None:
        """Name a place in a layout; nothing is made yet.

        Args:
            path: the layout.
            name: of the image in it; empty for the one it has already, if any.
            alone: whether the layout is for one image, which may lack layers. It takes the place
                of all others, which lose the blobs that it does not need; but when it is there
                already, what else is there belongs to it and stays. Directories of other layouts
                may be inside. All users can read it.
            trusted: whether the file system itself sees to it that a blob is what its name
                says, as a mount of ours does.
            believed: blobs that nobody reads to see whether they are what their names say.
            pool: the blobs of this layout; what waits in it need not be written again.
            disk: to write to; by default the one that the file system needs.
        """
        if name:
            check_ref_name(name)
        self._path = path
        self._name = name
        self._alone = alone
        self._trusted = trusted
        self._believed = believed
        self._pool = pool
        self._given = disk
        self._disk = disk or Disk()
        self._algorithms = set[str]()
        self._shares = True  # the bytes of the source, where the file system can
        self._prunes = alone and not trusted  # a mount's store collects what nobody mentions
        self._mode = _FOR_ALL if alone else None
        self.sparse = alone

    def platform(self) -> None:
        """A layout takes indexes."""

    def begin(self, image: Image) -> None:
        """Make the directory, or see that it is a layout, and remove what the dead left in it.

        Raises:
            InvalidContent: it holds something else, or a layout of another version.
        """
        self._make()
        with self._opened() as directory:
            self._disk = self._given or disk_of(directory)
            self._disk.sweep(directory)
            names = set(os.listdir(directory))
            strays = sorted(names - {BLOBS} if not names & {MARKER, INDEX} else ())
            if strays and not self._alone:
                raise InvalidContent(
                    f"{self._path} is no image layout and not empty: it holds {strays[0]!r}"
                )
            self._read(directory)
            if MARKER in names:
                self._check_version(directory)
        self._algorithms = {node.descriptor.digest.algorithm for node in image.nodes}
        self._make_blobs()

    def has(self, descriptor: Descriptor) -> bool:
        """Tell whether the blob is there, whole and on disk."""
        digest = descriptor.digest
        if self._trusted or digest in self._believed:
            return self._size(digest) == descriptor.size
        with self._blobs(digest.algorithm) as blobs:
            try:
                file = open_file(digest.encoded, blobs)
            except (FileNotFoundError, InvalidContent):
                return False
        try:
            if os.fstat(file).st_size != descriptor.size:
                return False
            if digest_of_file(file, digest.algorithm) != digest:
                return False
            self._disk.sync(file)
            return True
        finally:
            os.close(file)

    def put_blob(self, descriptor: Descriptor, source: Source) -> Action:
        """Take a blob, in the place of a damaged one."""
        digest = descriptor.digest
        if self._commit(descriptor, source):
            return Action.SENT
        with (
            CheckedSource(source).open(descriptor) as blob,
            self._blobs(digest.algorithm) as blobs,
            replacing(blobs, digest.encoded, self._disk, self._mode) as file,
        ):
            if self._shares and blob.file is not None and self._disk.clone(blob.file, file):
                if (actual := digest_of_file(file, digest.algorithm)) != digest:
                    raise DigestMismatch(digest, actual)
            else:
                self._fill(file, blob)
        return Action.SENT

    def put_manifest(self, descriptor: Descriptor, raw: bytes) -> None:
        """Take a manifest."""
        with self._blobs(descriptor.digest.algorithm) as blobs:
            self._write(blobs, descriptor.digest.encoded, raw)

    def tag(self, root: Descriptor) -> None:
        """Let `index.json` mention the image, in the place of the one with its name.

        Raises:
            Busy: another process keeps changing the layout.
        """
        for algorithm in self._algorithms:
            with self._blobs(algorithm) as blobs:
                self._disk.sync(blobs)
        with self._opened() as directory:
            if not take(directory, fcntl.LOCK_EX, TIMEOUT):
                raise Busy(f"{self._path}: locked by another process")
            before = self._read(directory)
            if MARKER not in os.listdir(directory):
                self._write(directory, MARKER, MARKER_CONTENT)
                self._disk.sync(directory)
            self._write(directory, INDEX, self._with(root, before))
            self._disk.sync(directory)
            if self._prunes:
                self._prune(before, self._read(directory))

    def losses(self) -> Sequence[str]:
        """A layout keeps an image as it is."""
        return ()

    def _with(self, root: Descriptor, document: Object) -> bytes:
        """Return an `index.json` that mentions the image too; its other members stay."""
        name = self._name or root.annotations.get(REF_NAME, "")
        entries = Index.parse(json.dumps(document).encode(), INDEX).manifests
        others = [entry.to_document() for entry in entries if self._stays(entry, root, name)]
        if self._alone and root not in entries:
            others = []
        annotations = {**root.annotations, **({REF_NAME: name} if name else {})}
        named = replace(root, annotations=annotations).to_document()
        raw = json.dumps({**document, "manifests": [*others, named]}, indent=2).encode() + b"\n"
        if len(raw) > MAX_DOCUMENT:
            raise InvalidContent(f"{self._path / INDEX} would have over {MAX_DOCUMENT} bytes")
        return raw

    def _stays(self, entry: Descriptor, root: Descriptor, name: str) -> bool:
        if self._alone:
            return entry != root
        return entry.annotations.get(REF_NAME, "") != name or not (name or entry == root)

    def _commit(self, descriptor: Descriptor, source: Source) -> bool:
        """Name what waits among the layout's own blobs; False if this does not."""
        if self._pool is None:
            return False
        with source.open(descriptor) as blob:
            if blob.ingest is None or blob.ingest.blobs is not self._pool:
                return False
            if not self._trusted:
                self._pool.delete(descriptor.digest)  # what is there is damaged
            blob.ingest.commit(descriptor.digest)
            return True

    def _prune(self, before: Object, after: Object) -> None:
        """Remove what the images of one index have and those of another have not."""
        try:
            old, new = self._contents(before), self._contents(after)
        except (OcistowError, OSError) as error:
            log.warning("%s: blobs of the image before stay: %s", self._path, error)
            return
        for digest in sorted(old - new):
            with self._blobs(digest.algorithm) as blobs:
                self._disk.unlink(blobs, digest.encoded)

    def _contents(self, document: Object) -> set[Digest]:
        source = LayoutSource(self._path)
        entries = Index.parse(json.dumps(document).encode(), INDEX).manifests
        return {
            node.descriptor.digest
            for entry in entries
            for node in walk(entry, lambda descriptor: read_document(source, descriptor))
        }

    def _size(self, digest: Digest) -> int | None:
        with self._blobs(digest.algorithm) as blobs:
            try:
                return os.stat(digest.encoded, dir_fd=blobs, follow_symlinks=False).st_size
            except FileNotFoundError:
                return None

    def _read(self, directory: int) -> Object:
        try:
            file = open_file(INDEX, directory)
        except FileNotFoundError:
            return _EMPTY
        with open(file, "rb") as stream:
            raw = stream.read(MAX_DOCUMENT + 1)
        what = f"{self._path / INDEX}"
        Index.parse(raw, what)
        return parse_object(raw, what)

    def _check_version(self, directory: int) -> None:
        what = f"{self._path / MARKER}"
        with open(open_file(MARKER, directory), "rb") as stream:
            marker = parse_object(stream.read(MAX_DOCUMENT), what)
        if (version := string(marker, "imageLayoutVersion", what)) != LAYOUT_VERSION:
            raise InvalidContent(f"{what} has version {quoted(version)}, not {LAYOUT_VERSION}")

    def _write(self, directory: int, name: str, content: bytes) -> None:
        with replacing(directory, name, self._disk, self._mode) as file:
            self._fill(file, [content])

    def _fill(self, file: int, chunks: Iterable[bytes]) -> None:
        offset = 0
        for data in chunks:
            self._disk.write(file, data, offset)
            offset += len(data)

    def _make(self) -> None:
        """Make the layout's directory, and those above it; present is success."""
        make_directory(self._path.resolve(), self._disk)

    def _make_blobs(self) -> None:
        """Make the directories of blobs, so that they survive power loss."""
        with self._opened() as directory:
            self._disk.mkdir(directory, BLOBS)
            self._disk.sync(directory)
        with self._opened(BLOBS) as blobs:
            for algorithm in self._algorithms:
                self._disk.mkdir(blobs, algorithm)
            self._disk.sync(blobs)
        for algorithm in self._algorithms:
            with self._blobs(algorithm) as names:
                self._disk.sweep(names)

    def _blobs(self, algorithm: str) -> AbstractContextManager[int]:
        """Open the directory of one algorithm's blobs."""
        return self._opened(BLOBS, algorithm)

    @contextmanager
    def _opened(self, *below: str) -> Generator[int]:
        """Open a directory of the layout; only the layout itself may be a symbolic link."""
        directory = open_directory(self._path.resolve())
        try:
            for name in below:
                step = open_directory(name, directory)
                os.dup2(step, directory, inheritable=False)
                os.close(step)
            yield directory
        finally:
            os.close(directory)
