"""What `docker save` writes, as source; it is not unpacked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Self

from ...oci.descriptor import OCI_CONFIG, OCI_MANIFEST, REF_NAME, Descriptor
from ...oci.digest import CANONICAL, Digest
from ...oci.document import MAX_DOCUMENT, as_object, members, parse_json, string
from ...oci.errors import DigestMismatch, InvalidContent, NotFound
from ...oci.manifest import ImageConfig, Manifest
from ...oci.reference import Reference
from ...oci.wording import quoted
from ...store.index.layers import Layer
from ...store.ingest import Ingest
from ...store.reading import READ_SIZE
from ..compression import LAYERS, Inflated, form_of, inflated, read_block
from ..packing import WORKERS, Hashed, Packed, pack
from ..recognition import Recognition
from ..source import Blob, Section
from .archive import Archive, read_member
from .entries import BLOCK
from .oci import OciArchiveSource

MANIFEST = "manifest.json"

_CONFIG_NAME = re.compile(r"(?:.*/)?([0-9a-f]{64})(?:\.json)?")
_MAX_MISSING = 10  # in one message


@dataclass(frozen=True, slots=True)
class _Entry:
    """One image of a `manifest.json`."""

    config: str
    names: tuple[str, ...]
    layers: tuple[str, ...]


class DockerArchiveSource:
    """One image that `docker save` or a tool like it wrote, as an OCI image.

    Layers that the store has, as the diffIDs of the config say, are taken from there
    and not read; the archive may lack them. Others that are plain tars are compressed
    when the image is resolved, and wait in unnamed files of the pool until the source is
    closed. Compressed ones stay as they are, and so does the config. The manifest is that
    of an image of the store with this very config, that of the archive if it is an image
    layout, too, or a new one. `open` is thread-safe.

    Attributes:
        config: the digest of the config of the image that was resolved.
    """

    sparse = False

    def __init__(self, archive: Archive, recognition: Recognition, name: str = "") -> None:
        self._archive = archive
        self._recognition = recognition
        self._layout = OciArchiveSource(archive, recognition)
        self._name = name
        self._stack = ExitStack()
        self._root: Descriptor | None = None
        self.config: Digest | None = None
        self._documents: dict[Digest, bytes] = {}
        self._packed: dict[Digest, Ingest] = {}
        self._kept: dict[Digest, str] = {}
        self._seen: list[Layer] = []

    def resolve(self) -> Descriptor:
        """Find or make the manifest of the image that the name selects.

        A name is a RepoTag, or `@` and a position.

        Raises:
            NotFound: there is no such image, or a part of it is missing here and in the store.
            InvalidContent: the name is needed to choose, or a layer is not what the
                config says.
        """
        if self._root is None:
            entry, name = self._select()
            raw = read_member(self._archive, entry.config, MAX_DOCUMENT)
            digest = Digest.of(raw)
            if config_name(entry.config) not in (None, digest.encoded):
                raise DigestMismatch(
                    Digest(digest.algorithm, str(config_name(entry.config))), digest
                )
            self.config = digest
            config = ImageConfig.parse(raw, f"config {digest}")
            annotations = {REF_NAME: name} if name else {}
            root = self._recognition.image(digest) or self._made(entry, config, digest)
            self._root = replace(root, annotations=annotations, platform=config.platform)
        return self._root

    def open(self, descriptor: Descriptor) -> Blob:
        """Open a part of the image that was resolved."""
        digest = descriptor.digest
        if raw := self._documents.get(digest):
            return Blob(BytesIO(raw), descriptor)
        if ingest := self._packed.get(digest):
            section = Section(ingest.file, 0, ingest.size)
            return Blob(section, descriptor, ingest.file, ingest)
        if member := self._kept.get(digest):
            return self._archive.open_blob(member, descriptor)
        return self._layout.open(descriptor)

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
            raise NotFound(f"{what} in {self._archive.name} (there: {there or 'nothing'})")
        if len(found) > 1:
            raise InvalidContent(f"{self._archive.name} has several images, choose one: {there}")
        entry, name = found[0]
        return entry, name or (entry.names[0] if len(entry.names) == 1 else "")

    def _entries(self) -> Iterator[_Entry]:
        what = f"{MANIFEST} of {self._archive.name}"
        raw = read_member(self._archive, MANIFEST, MAX_DOCUMENT)
        for image in members(parse_json(raw, what), what):
            document = as_object(image, what)
            names, layers = (
                tuple(_string(text, what) for text in members(document.get(key), what))
                for key in ("RepoTags", "Layers")
            )
            yield _Entry(string(document, "Config", what), names, layers)

    def _made(self, entry: _Entry, config: ImageConfig, digest: Digest) -> Descriptor:
        """Return the archive's own manifest, or make one."""
        layers = self._layers(entry, config.diff_ids)
        found = self._own_manifest(digest, layers)
        raw = image_manifest(Descriptor(OCI_CONFIG, digest, len(config.raw)), layers)
        root = found or Descriptor(OCI_MANIFEST, Digest.of(raw), len(raw))
        self._documents = {digest: config.raw} if found else {digest: config.raw, root.digest: raw}
        return root

    def _own_manifest(self, config: Digest, layers: Sequence[Descriptor]) -> Descriptor | None:
        """Return the manifest of these very blobs, if the archive is an image layout, too."""
        with suppress(NotFound):
            for node in self._layout.nodes():
                if (
                    isinstance(node.document, Manifest)
                    and node.document.config.digest == config
                    and [d.digest for d in node.document.layers] == [d.digest for d in layers]
                ):
                    return node.descriptor
        return None

    def _layers(self, entry: _Entry, diff_ids: Sequence[Digest]) -> list[Descriptor]:
        """Return the layers as blobs, taken from the store, kept or made."""
        if len(entry.layers) != len(diff_ids):
            raise InvalidContent(
                f"{quoted(entry.config)} of {self._archive.name} has {len(diff_ids)} diff_ids, "
                f"{MANIFEST} has {len(entry.layers)} layers"
            )
        found = self._recognition.layers(diff_ids)
        members = dict[Digest, str]()
        missing = list[str]()
        for name, diff_id in zip(entry.layers, diff_ids, strict=True):
            if diff_id not in found and diff_id not in members:
                try:
                    members[diff_id] = self._archive.find(name)
                except NotFound:
                    missing.append(f"{quoted(name)} ({diff_id})")
        if missing:
            names = ", ".join(missing[:_MAX_MISSING]) + ", …" * (len(missing) > _MAX_MISSING)
            raise NotFound(f"layers of {self._archive.name} that the store does not have: {names}")
        with ThreadPoolExecutor(WORKERS, "pack") as executor:
            blobs = executor.map(self._layer, members.values(), members.keys())
            found.update(zip(members, blobs, strict=True))
        self._recognition.note(self._seen)
        return [found[diff_id] for diff_id in diff_ids]

    def _layer(self, member: str, diff_id: Digest) -> Descriptor:
        """Return a layer as a blob; one that is compressed by gzip or zstd stays as it is.

        Raises:
            DigestMismatch: it is not what the config says.
        """
        packed = self._archive.packed(member)
        if packed is not None and packed.layer.diff_id.algorithm == diff_id.algorithm:
            return self._checked(packed, diff_id)
        with closing(self._archive.open(member)) as stream:
            form = form_of(read_block(stream, BLOCK))
        if form in ("gzip", "zstd"):
            return self._keep(member, diff_id, form)
        with closing(self._archive.open(member)) as stream:
            ingest = self._stack.enter_context(self._recognition.pool.ingest())
            plain = inflated(stream)
            return self._checked(pack(plain, ingest, diff_id.algorithm), diff_id)

    def _checked(self, packed: Packed, diff_id: Digest) -> Descriptor:
        """Keep what was compressed; it must be what the config says."""
        _check(packed.layer, diff_id)
        self._packed[packed.layer.blob.digest] = packed.ingest
        self._seen.append(packed.layer)
        return packed.layer.blob

    def _keep(self, member: str, diff_id: Digest, form: str) -> Descriptor:
        """Describe a layer that is compressed already."""
        hashed = Hashed(self._archive.open(member), CANONICAL)
        plain = Hashed(Inflated(hashed, form), diff_id.algorithm)
        with closing(plain):
            while plain.read(READ_SIZE):
                pass
        blob = Descriptor(LAYERS[form], hashed.digest, hashed.size)
        layer = Layer(plain.digest, plain.size, blob)
        _check(layer, diff_id)
        self._seen.append(layer)
        self._kept[blob.digest] = member
        return blob


def config_name(member: str) -> str | None:
    """Return the hash that a config is called by, if it is."""
    match = _CONFIG_NAME.fullmatch(member)
    return match[1] if match else None


def image_manifest(
    config: Descriptor, layers: Iterable[Descriptor], media_type: str = OCI_MANIFEST
) -> bytes:
    """Return a new manifest; the same parts always give the same bytes."""
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": config.to_document(),
        "layers": [layer.to_document() for layer in layers],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _check(layer: Layer, diff_id: Digest) -> None:
    if layer.diff_id != diff_id:
        raise DigestMismatch(diff_id, layer.diff_id)


def _string(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise InvalidContent(f"{value!r:.80} in {what} is not a string")
    return value
