"""What `docker save` writes, as source; it is not unpacked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from typing import Self

from ..oci.descriptor import (
    OCI_CONFIG,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    REF_NAME,
    Descriptor,
)
from ..oci.digest import CANONICAL, Digest, new_hash
from ..oci.document import MAX_DOCUMENT, as_object, members, string
from ..oci.errors import DigestMismatch, InvalidContent, NotFound
from ..oci.manifest import ImageConfig
from ..oci.reference import Reference
from ..store.blobs import READ_SIZE, BlobStore, Ingest
from .compression import GZIP_MAGIC, ZSTD_MAGIC, Inflated, gzipped, read_block
from .source import Blob, Stream
from .tarball import Section, Tarball, member_blob

MANIFEST = "manifest.json"

_CONFIG_NAME = re.compile(r"(?:.*/)?([0-9a-f]{64})(?:\.json)?")


@dataclass(frozen=True, slots=True)
class _Entry:
    """One image of a `manifest.json`."""

    config: str
    names: tuple[str, ...]
    layers: tuple[str, ...]


class DockerArchiveSource:
    """One image that `docker save` or a tool like it wrote, as an OCI image.

    Layers that are plain tars are compressed when the image is resolved, and wait
    in unnamed files of `pool` until the source is closed. All else stays as it is.
    The same archive always gives the same image. `open` is thread-safe.
    """

    sparse = False

    def __init__(self, tar: Tarball, pool: BlobStore, name: str = "") -> None:
        self._tar = tar
        self._pool = pool
        self._name = name
        self._stack = ExitStack()
        self._root: Descriptor | None = None
        self._documents: dict[Digest, bytes] = {}
        self._packed: dict[Digest, Ingest] = {}
        self._kept: dict[Digest, str] = {}

    def resolve(self) -> Descriptor:
        """Make the manifest of the image that the name selects: a RepoTag, or `@` and a position.

        Raises:
            NotFound: there is no such image, or a part of it is missing.
            InvalidContent: the name is needed to choose, or a layer is not what the
                config says.
        """
        if self._root is None:
            entry, name = self._select()
            raw = self._tar.read(entry.config, MAX_DOCUMENT)
            digest = Digest.of(raw)
            stated = _CONFIG_NAME.fullmatch(entry.config)
            if stated is not None and stated[1] != digest.encoded:
                raise DigestMismatch(Digest(digest.algorithm, stated[1]), digest)
            config = ImageConfig.parse(raw, f"config {digest}")
            manifest = self._manifest(entry, config, Descriptor(OCI_CONFIG, digest, len(raw)))
            root = Digest.of(manifest)
            self._documents = {digest: raw, root: manifest}
            annotations = {REF_NAME: name} if name else {}
            self._root = Descriptor(OCI_MANIFEST, root, len(manifest), annotations, config.platform)
        return self._root

    def open(self, descriptor: Descriptor) -> Blob:
        """Open a part of the image that was resolved."""
        digest = descriptor.digest
        if raw := self._documents.get(digest):
            return Blob(BytesIO(raw), descriptor)
        if ingest := self._packed.get(digest):
            return Blob(Section(ingest.file, 0, ingest.size), descriptor, ingest.file)
        if member := self._kept.get(digest):
            return member_blob(self._tar, member, descriptor)
        raise NotFound(digest)

    def close(self) -> None:
        """Discard compressed layers that nobody took."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _select(self) -> tuple[_Entry, str]:
        """Return an image and the name that it shall have; empty if it has none or several."""
        entries = list(self._entries())
        if self._name.startswith("@"):
            found = [(e, "") for at, e in enumerate(entries) if self._name[1:] == str(at)]
        elif self._name:
            wanted = Reference.parse(self._name)
            found = [
                (entry, name)
                for entry in entries
                for name in entry.names
                if Reference.parse(name) == wanted
            ]
        else:
            found = [(entry, "") for entry in entries]
        there = ", ".join(
            " = ".join((f"@{at}", *entry.names)) for at, entry in enumerate(entries[:10])
        )
        if not found:
            what = self._name or "an image"
            raise NotFound(f"{what} in {self._tar.name} (there: {there or 'nothing'})")
        if len(found) > 1:
            raise InvalidContent(f"{self._tar.name} has several images, choose one: {there}")
        entry, name = found[0]
        return entry, name or (entry.names[0] if len(entry.names) == 1 else "")

    def _entries(self) -> Iterator[_Entry]:
        what = f"{MANIFEST} of {self._tar.name}"
        raw = self._tar.read(MANIFEST, MAX_DOCUMENT)
        try:
            images = members(json.loads(raw), what)
        except (ValueError, RecursionError) as error:
            raise InvalidContent(f"{what} is not JSON: {error}") from error
        for image in images:
            document = as_object(image, what)
            names, layers = (
                tuple(_string(text, what) for text in members(document.get(key), what))
                for key in ("RepoTags", "Layers")
            )
            yield _Entry(string(document, "Config", what), names, layers)

    def _manifest(self, entry: _Entry, config: ImageConfig, descriptor: Descriptor) -> bytes:
        if len(entry.layers) != len(config.diff_ids):
            raise InvalidContent(
                f"{entry.config} of {self._tar.name} has {len(config.diff_ids)} diff_ids, "
                f"{MANIFEST} has {len(entry.layers)} layers"
            )
        done: dict[tuple[str, Digest], Descriptor] = {}
        layers: list[Descriptor] = []
        for name, diff_id in zip(entry.layers, config.diff_ids, strict=True):
            key = self._tar.find(name), diff_id
            if key not in done:
                done[key] = self._layer(*key)
            layers.append(done[key])
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor.to_document(),
            "layers": [layer.to_document() for layer in layers],
        }
        return json.dumps(document, separators=(",", ":")).encode()

    def _layer(self, member: str, diff_id: Digest) -> Descriptor:
        stream = self._tar.open_member(member)
        try:
            start = read_block(stream, len(ZSTD_MAGIC))
        finally:
            stream.close()
        if start.startswith(GZIP_MAGIC):
            return self._keep(member, OCI_LAYER_GZIP, diff_id)
        if start == ZSTD_MAGIC:
            return self._keep(member, f"{OCI_LAYER}+zstd", None)
        return self._pack(member, diff_id)

    def _keep(self, member: str, media_type: str, diff_id: Digest | None) -> Descriptor:
        """Describe a layer that is compressed already, and check what it inflates to."""
        hashed = _Hashed(self._tar.open_member(member), CANONICAL)
        stream = hashed if diff_id is None else _Hashed(Inflated(hashed), diff_id.algorithm)
        try:
            while stream.read(READ_SIZE):
                pass
        finally:
            stream.close()
        if diff_id not in (None, stream.digest):
            raise DigestMismatch(diff_id, stream.digest)
        self._kept[hashed.digest] = member
        return Descriptor(media_type, hashed.digest, hashed.size)

    def _pack(self, member: str, diff_id: Digest) -> Descriptor:
        """Compress a layer into an unnamed file of the pool."""
        stream = _Hashed(self._tar.open_member(member), diff_id.algorithm)
        try:
            ingest = self._stack.enter_context(self._pool.ingest())
            for data in gzipped(stream):
                ingest.write(data)
        finally:
            stream.close()
        if stream.digest != diff_id:
            raise DigestMismatch(diff_id, stream.digest)
        digest = ingest.digest()
        self._packed[digest] = ingest
        return Descriptor(OCI_LAYER_GZIP, digest, ingest.size)


class _Hashed:
    """A stream that knows the digest and size of what was read from it."""

    def __init__(self, stream: Stream, algorithm: str) -> None:
        self._stream = stream
        self._algorithm = algorithm
        self._hash = new_hash(algorithm)
        self.size = 0

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self._hash.update(data)
        self.size += len(data)
        return data

    def close(self) -> None:
        self._stream.close()

    @property
    def digest(self) -> Digest:
        return Digest(self._algorithm, self._hash.hexdigest())


def _string(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise InvalidContent(f"{value!r:.80} in {what} is not a string")
    return value
