"""Layers and images that the store has already, recognised by what they are uncompressed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from ..oci.descriptor import IMAGE_CONFIGS, OCI_LAYER_GZIP, Descriptor
from ..oci.digest import CANONICAL, Digest
from ..oci.document import MAX_DOCUMENT
from ..oci.errors import DigestMismatch, InvalidContent, NotFound, OcistowError
from ..oci.graph import walk
from ..oci.manifest import Manifest, media_type_of
from ..oci.wording import message_of
from ..store.index.layers import Layer
from ..store.layout import Layout
from ..store.reading import READ_SIZE
from ..store.store import Store
from .archives.entries import BLOCK
from .compression import LAYERS, form_of, inflated
from .layout import file_blob
from .packing import Hashed
from .source import Blob

MAX_IMAGES = 4096  # of the store that are looked at; each takes some 0.2 ms
MAX_CLAIMS = 3  # blobs said to be one layer that are inflated to see whether one is
WORKERS = 2  # threads that inflate; each keeps a core busy

_COMPRESSED = LAYERS.keys() - {""}

_Claim = tuple[Digest, Descriptor]
T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Held:
    """An image of the store."""

    layout: Layout
    descriptor: Descriptor
    manifest: Manifest

    def claims(self) -> list[_Claim]:
        """Return what the config says of each layer; nothing if they do not match."""
        diff_ids = self.layout.config(self.manifest).diff_ids
        if len(diff_ids) != len(self.manifest.layers):
            return []
        return list(zip(diff_ids, self.manifest.layers, strict=True))


class Recognition:
    """Finds blobs of the pool by diffID, and images by the digest of their config. Thread-safe.

    What an image says of its layers is checked by inflating them, once: what was seen
    is noted in the store. Trouble with that database costs time, and is no failure.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.pool = store.blobs

    def layers(self, diff_ids: Iterable[Digest]) -> dict[Digest, Descriptor]:
        """Return a blob of the pool that inflates to each of these, where there is one."""
        wanted = set(diff_ids)
        found = {d: layers[0].blob for d, layers in self._noted(wanted).items() if layers}
        if unknown := wanted - found.keys():
            for layer in self._seen((d.algorithm, blob) for d, blob in self._claims(unknown)):
                if layer.diff_id in unknown:
                    found.setdefault(layer.diff_id, layer.blob)
        return found

    def image(self, config: Digest) -> Descriptor | None:
        """Return the manifest of an image with this config, all of whose layers the pool has."""
        for held in self._images():
            if held.manifest.config.digest == config and self._is_whole(held):
                return held.descriptor
        return None

    def manifest(self, digest: Digest) -> Descriptor | None:
        """Return what the pool has under a digest, if that is a manifest or index."""
        try:
            with open(self.pool.open(digest), "rb") as file:
                raw = file.read(MAX_DOCUMENT + 1)
            return Descriptor(media_type_of(raw), digest, len(raw))
        except (NotFound, InvalidContent):
            return None

    def is_complete(self, root: Descriptor) -> bool:
        """Tell whether the pool has all of an image or index."""
        try:
            return all(self.has(node.descriptor) for node in walk(root, self._read))
        except (NotFound, InvalidContent):
            return False

    def may_know(self, size: int) -> bool:
        """Tell whether a layer of so many bytes, uncompressed, was seen before."""
        return self._careful(lambda: self._store.layers.knows_size(size), otherwise=False)

    def note(self, layers: Iterable[Layer]) -> None:
        """Note layers that were compressed, or inflated and hashed."""
        self._careful(lambda: self._store.layers.add(layers), None)

    def learn(self, blobs: Sequence[Descriptor]) -> int:
        """Inflate those of these blobs that nobody inflated yet; return how many are layers."""
        known = self._careful(
            lambda: self._store.layers.known(blob.digest for blob in blobs), frozenset[Digest]()
        )
        unknown = [b for b in blobs if b.digest not in known and self._looks_like_layer(b)]
        return len(self._seen((CANONICAL, blob) for blob in unknown))

    def open(self, descriptor: Descriptor) -> Blob:
        """Open a blob of the pool.

        Raises:
            NotFound: it does not have it; `name` is its digest.
            InvalidContent: it has another size.
        """
        return file_blob(self.pool.open(descriptor.digest), descriptor)

    def has(self, descriptor: Descriptor) -> bool:
        """Tell whether the pool has a blob of this digest and size."""
        try:
            return self.pool.stat(descriptor.digest).st_size == descriptor.size
        except NotFound:
            return False

    def _looks_like_layer(self, blob: Descriptor) -> bool:
        try:
            with self.open(blob) as opened:
                start = opened.read(BLOCK)
        except (NotFound, InvalidContent):
            return False
        return form_of(start) in _COMPRESSED or start[257:262] == b"ustar"

    def _read(self, descriptor: Descriptor) -> bytes:
        with self.open(descriptor) as blob:
            raw = b"".join(blob)
        if (actual := Digest.of(raw, descriptor.digest.algorithm)) != descriptor.digest:
            raise DigestMismatch(descriptor.digest, actual)
        return raw

    def _noted(self, diff_ids: Iterable[Digest]) -> dict[Digest, list[Layer]]:
        """Return what was seen before and is still there, gzip first: every daemon reads that."""
        nothing = dict[Digest, tuple[Layer, ...]]()
        noted = self._careful(lambda: self._store.layers.find(diff_ids), nothing)
        return {
            diff_id: sorted(
                (layer for layer in layers if self.has(layer.blob)),
                key=lambda layer: layer.blob.media_type != OCI_LAYER_GZIP,
            )
            for diff_id, layers in noted.items()
        }

    def _is_whole(self, held: _Held) -> bool:
        """Tell whether the pool has all of an image, and the layers are what the config says."""
        try:
            claims = held.claims()
        except (OcistowError, OSError):
            return False
        if len(claims) != len(held.manifest.layers) or not all(
            map(self.has, (held.manifest.config, *held.manifest.layers))
        ):
            return False
        noted = self._noted({diff_id for diff_id, _ in claims})
        seen = {(d, layer.blob.digest) for d, layers in noted.items() for layer in layers}
        unseen = [(d.algorithm, blob) for d, blob in claims if (d, blob.digest) not in seen]
        seen.update((layer.diff_id, layer.blob.digest) for layer in self._seen(unseen))
        return all((diff_id, blob.digest) in seen for diff_id, blob in claims)

    def _claims(self, wanted: set[Digest]) -> list[_Claim]:
        """Return which blobs of the pool images of the store say to be these layers."""
        found: dict[Digest, dict[Digest, Descriptor]] = {diff_id: {} for diff_id in wanted}
        for held in self._images():
            try:
                claims = held.claims()
            except (OcistowError, OSError):
                continue
            for diff_id, blob in claims:
                if diff_id in wanted and len(found[diff_id]) < MAX_CLAIMS and self.has(blob):
                    found[diff_id].setdefault(blob.digest, blob)
        return [(diff_id, blob) for diff_id, blobs in found.items() for blob in blobs.values()]

    def _seen(self, claimed: Iterable[tuple[str, Descriptor]]) -> list[Layer]:
        """Inflate blobs, and note what they really are by some algorithm."""
        blobs = {(algorithm, blob.digest): blob for algorithm, blob in claimed}
        if not blobs:
            return []
        with ThreadPoolExecutor(min(WORKERS, len(blobs)), "inflate") as executor:
            seen = executor.map(self._inflate, blobs.values(), [a for a, _ in blobs])
            layers = [layer for layer in seen if layer is not None]
        self.note(layers)
        return layers

    def _inflate(self, blob: Descriptor, algorithm: str) -> Layer | None:
        """Return what a blob inflates to; None if nothing that we can read."""
        try:
            with self.open(blob) as opened:
                media_type = LAYERS.get(form_of(opened.read(BLOCK)))
            if media_type is None:
                return None
            plain = Hashed(inflated(self.open(blob)), algorithm)
            with closing(plain):
                while plain.read(READ_SIZE):
                    pass
        except (InvalidContent, NotFound) as error:
            log.info("layer %s: %s", blob.digest, error)
            return None
        return Layer(plain.digest, plain.size, Descriptor(media_type, blob.digest, blob.size))

    def _images(self) -> Iterator[_Held]:
        """Yield the images of the store; what cannot be read is left out."""
        return islice(self._all_images(), MAX_IMAGES)

    def _all_images(self) -> Iterator[_Held]:
        seen: set[Digest] = set()
        for name in self._store.names():
            layout = self._store.layout(name)
            try:
                for root in layout.index().manifests:
                    for node in walk(root, layout.read):
                        manifest = node.document
                        if (
                            isinstance(manifest, Manifest)
                            and manifest.config.media_type in IMAGE_CONFIGS
                            and node.descriptor.digest not in seen
                        ):
                            seen.add(node.descriptor.digest)
                            yield _Held(layout, node.descriptor, manifest)
            except (OcistowError, OSError) as error:
                log.info("%s: %s", name, error)

    def _careful(self, use: Callable[[], T], otherwise: T) -> T:
        try:
            return use()
        except OSError as error:
            log.warning("%s: going on without it", message_of(error))
            return otherwise
