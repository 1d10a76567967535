"""An image layout outside the store as sink: what `oci:DIR[:TAG]` names.

Source: image-spec, image-layout.md.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ..oci.descriptor import OCI_INDEX, REF_NAME, Descriptor
from ..oci.document import MAX_DOCUMENT, Object, parse_object, string
from ..oci.errors import Busy, DigestMismatch, InvalidContent
from ..oci.manifest import Index
from ..oci.wording import quoted
from ..store.blobs import digest_of_file
from ..store.disk import Disk, open_directory, open_file, replacing
from ..store.layout import BLOBS, INDEX, LAYOUT_VERSION, MARKER, MARKER_CONTENT
from ..store.lock import TIMEOUT, take
from ..store.store import make_directory
from .archives.layout_tar import check_ref_name
from .checked import CheckedSource
from .sink import Action, Image
from .source import Source

_EMPTY: Object = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}


class LayoutSink:
    """A name in a plain image layout, whose other images stay.

    Blobs are copies, or share their bytes with the store where the file system can; they
    are no hard links, since other tools write to what lies in a layout. A blob that is
    there is hashed before it is believed. Everything survives power loss before
    `index.json` mentions it.
    """

    sparse = False

    def __init__(self, path: Path, name: str = "") -> None:
        if name:
            check_ref_name(name)
        self._path = path
        self._name = name
        self._algorithms = set[str]()
        self._disk = Disk()

    def platform(self) -> None:
        """A layout takes indexes."""

    def begin(self, image: Image) -> None:
        """Make the directory, or see that it is a layout.

        Raises:
            InvalidContent: it holds something else, or a layout of another version.
        """
        make_directory(self._path.resolve(), self._disk)
        with self._opened() as directory:
            names = set(os.listdir(directory))
            if strays := sorted(names - {BLOBS} if not names & {MARKER, INDEX} else ()):
                raise InvalidContent(
                    f"{self._path} is no image layout and not empty: it holds {strays[0]!r}"
                )
            self._read(directory)
            if MARKER in names:
                self._check_version(directory)
            else:
                self._write(directory, MARKER, MARKER_CONTENT)
            self._disk.mkdir(directory, BLOBS)
            self._disk.sync(directory)
        with self._opened(BLOBS) as blobs:
            self._algorithms = {node.descriptor.digest.algorithm for node in image.nodes}
            for algorithm in self._algorithms:
                self._disk.mkdir(blobs, algorithm)
            self._disk.sync(blobs)

    def has(self, descriptor: Descriptor) -> bool:
        """Tell whether the blob is there, whole and on disk."""
        digest = descriptor.digest
        with self._opened(BLOBS, digest.algorithm) as blobs:
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
        with (
            CheckedSource(source).open(descriptor) as blob,
            self._opened(BLOBS, digest.algorithm) as blobs,
            replacing(blobs, digest.encoded) as file,
        ):
            if blob.file is not None and self._disk.clone(blob.file, file):
                if (actual := digest_of_file(file, digest.algorithm)) != digest:
                    raise DigestMismatch(digest, actual)
            else:
                self._fill(file, blob)
        return Action.SENT

    def put_manifest(self, descriptor: Descriptor, raw: bytes) -> None:
        """Take a manifest."""
        with self._opened(BLOBS, descriptor.digest.algorithm) as blobs:
            self._write(blobs, descriptor.digest.encoded, raw)

    def tag(self, root: Descriptor) -> None:
        """Let `index.json` mention the image, in the place of the one with its name.

        Raises:
            Busy: another process keeps changing the layout.
        """
        for algorithm in self._algorithms:
            with self._opened(BLOBS, algorithm) as blobs:
                self._disk.sync(blobs)
        with self._opened() as directory:
            if not take(directory, fcntl.LOCK_EX, TIMEOUT):
                raise Busy(f"{self._path}: locked by another process")
            self._write(directory, INDEX, self._with(root, self._read(directory)))
            self._disk.sync(directory)

    def losses(self) -> Sequence[str]:
        """A layout keeps an image as it is."""
        return ()

    def _with(self, root: Descriptor, document: Object) -> bytes:
        """Return an `index.json` that mentions the image too; its other members stay."""
        name = self._name or root.annotations.get(REF_NAME, "")
        entries = Index.parse(json.dumps(document).encode(), INDEX).manifests
        others = [
            entry.to_document()
            for entry in entries
            if entry.annotations.get(REF_NAME, "") != name or not (name or entry == root)
        ]
        annotations = {**root.annotations, **({REF_NAME: name} if name else {})}
        named = replace(root, annotations=annotations).to_document()
        raw = json.dumps({**document, "manifests": [*others, named]}, indent=2).encode() + b"\n"
        if len(raw) > MAX_DOCUMENT:
            raise InvalidContent(f"{self._path / INDEX} would have over {MAX_DOCUMENT} bytes")
        return raw

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
        with replacing(directory, name) as file:
            self._fill(file, [content])

    def _fill(self, file: int, chunks: Iterable[bytes]) -> None:
        offset = 0
        for data in chunks:
            self._disk.write(file, data, offset)
            offset += len(data)

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
