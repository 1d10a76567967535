"""The classic image store: a docker-archive stream without the layers that the daemon has.

What a load accepts is in moby's image/tarexport/load.go: a layer may be left out of the
archive when the daemon has its ChainID, which names it together with all layers below.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Sequence

from ...oci.descriptor import DOCKER_MANIFEST, Descriptor
from ...oci.digest import Digest
from ...oci.document import parse_object
from ...oci.errors import InvalidContent, RegistryError
from ..compression import ZSTD_MAGIC
from ..source import Blob, Source
from ..tarstream import Entry, TarStream
from .engine import Engine
from .plain import PlainLayers, plain_size
from .wanted import Wanted

_ZSTD_SINCE = (1, 42)  # API version of the first release whose load reads zstd layers
_VANISHED = ("no such file or directory", "not found")  # how a load says that it lacks a layer

log = logging.getLogger(__name__)


class ClassicStore:
    """The store that knows images by their config and layers by their ChainID.

    Podman's imitation is one too, but does not take an image without some layers.
    """

    def __init__(self, engine: Engine, wanted: Wanted) -> None:
        self._engine = engine
        self._wanted = wanted
        self._layers = wanted.manifest.layers
        self._unchanged = False
        self._known = 0  # of the lowest layers
        self._sizes: dict[Digest, int] = {}  # of layers that are inflated on the way

    def lacking(self) -> frozenset[Digest]:
        """Return which blobs it has to be sent; none if it has the image."""
        config = self._wanted.manifest.config.digest
        if self._wanted.is_named or self._engine.image(str(config)) is not None:
            self._unchanged = True
            return frozenset()
        if not self._engine.is_podman:
            self._known = self._count_known()
        return frozenset((config, *(layer.digest for layer in self._layers[self._known :])))

    def prepare(self, layer: Descriptor, source: Source) -> None:
        """Find out how a layer is compressed.

        Raises:
            RegistryError: the daemon cannot read it.
        """
        with source.open(layer) as blob:
            if _is_zstd(blob) and not self._engine.is_podman:
                self._check_zstd(layer.digest)
            # over a network fewer bytes are worth more than the daemon's time
            if self._engine.host.is_near and (size := plain_size(blob)) is not None:
                self._sizes[layer.digest] = size

    def load(self) -> None:
        """Send what is lacking and the name, or only the name.

        When a layer vanished since `lacking`, everything is sent once.
        """
        if self._unchanged:
            if not self._wanted.is_named:
                config = self._wanted.manifest.config.digest
                self._engine.tag(str(config), self._wanted.reference)
            return
        try:
            self._send(self._known)
        except RegistryError as error:
            if self._known == 0 or not any(words in error.message for words in _VANISHED):
                raise
            log.info("%s: layers vanished, sending all", self._engine.name)
            for layer in self._layers[: self._known]:
                self.prepare(layer, self._wanted.source)
            self._send(0)

    def losses(self) -> Sequence[str]:
        """Return what a load in docker's own format drops."""
        manifest = self._wanted.manifest
        document = parse_object(manifest.raw, f"manifest {self._wanted.root.digest}")
        described = (manifest.config, *manifest.layers)
        packed = zip(manifest.layers, self._wanted.config.diff_ids, strict=True)
        lost = {
            "manifest digest": True,
            "annotations": document.get("annotations") or any(d.annotations for d in described),
            "subject": document.get("subject"),
            "artifact type": document.get("artifactType"),
            "media types": manifest.media_type != DOCKER_MANIFEST,
            "digests of compressed layers": any(layer.digest != plain for layer, plain in packed),
        }
        return [what for what, is_lost in lost.items() if is_lost]

    def _count_known(self) -> int:
        """Return how many of the lowest layers some image of the daemon has.

        The image that has the name now is looked at first: it mostly decides. All
        others cost 0.3 ms each, and a layer that is sent in vain costs 40.
        """
        wanted = chain_ids(self._wanted.config.diff_ids)
        there = self._wanted.there
        found = set(chain_ids(there.diff_ids) if there is not None else ())
        for name in () if not wanted or wanted[-1] in found else self._engine.images():
            other = self._engine.image(name)
            found.update(chain_ids(other.diff_ids) if other is not None else ())
            if wanted[-1] in found:
                break
        known = (count for count in range(len(wanted), 0, -1) if wanted[count - 1] in found)
        return next(known, 0)

    def _check_zstd(self, digest: Digest) -> None:
        if self._engine.api_version < _ZSTD_SINCE:
            version = ".".join(map(str, self._engine.api_version))
            words = f"API version {version} reads no zstd layers, such as {digest}"
            raise RegistryError(self._engine.name, 0, (), words)

    def _send(self, known: int) -> None:
        """Load the image without its lowest layers.

        A layer that is not as long as it says breaks the stream; then all are sent as
        they are, once.
        """
        plain = PlainLayers(self._wanted.source, self._sizes)
        try:
            self._engine.load(TarStream(self._entries(known), plain))
        except InvalidContent:
            if not plain.mistaken:
                raise
            log.info("%s has several gzip members", ", ".join(map(str, plain.mistaken)))
            self._sizes.clear()
            self._engine.load(TarStream(self._entries(known), self._wanted.source))

    def _entries(self, known: int) -> Iterable[Entry]:
        raw, digest = self._wanted.config.raw, self._wanted.manifest.config.digest
        names = [f"{diff_id.encoded}.tar" for diff_id in self._wanted.config.diff_ids]
        image = {
            "Config": f"{digest.encoded}.json",
            "RepoTags": [str(self._wanted.reference)],
            "Layers": names,
        }
        yield Entry.of(f"{digest.encoded}.json", raw)
        sent = dict(zip(names[known:], self._layers[known:], strict=True))  # each file once
        for name, layer in sent.items():
            yield Entry(name, self._sizes.get(layer.digest, layer.size), layer)
        yield Entry.of("manifest.json", json.dumps([image]).encode())


def chain_ids(diff_ids: Sequence[Digest]) -> list[Digest]:
    """Return the ChainID of each layer, the lowest first.

    Source: image-spec, config.md, "Layer ChainID".
    """
    chain: list[Digest] = []
    for diff_id in diff_ids:
        chain.append(Digest.of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return chain


def _is_zstd(blob: Blob) -> bool:
    if blob.descriptor.media_type.endswith("zstd"):
        return True
    return blob.file is not None and os.pread(blob.file, len(ZSTD_MAGIC), 0) == ZSTD_MAGIC
