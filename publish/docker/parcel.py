"""An image as a docker-archive stream, without the layers that the daemon has.

What a load accepts is in moby's image/tarexport/load.go: a layer may be left out of the
archive, but not of the list of layers in it.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator

from ...oci.descriptor import Descriptor
from ...oci.digest import Digest
from ...oci.errors import InvalidContent, RegistryError
from ..archives.tarstream import Entry, TarStream
from ..compression import ZSTD_MAGIC
from ..source import Blob, Source
from .engine import Engine
from .plain import PlainLayers, plain_size
from .wanted import Wanted

_ZSTD_SINCE = (1, 42)  # API version of the first release whose load reads zstd layers

log = logging.getLogger(__name__)


class Parcel:
    """What is sent of one image, once its layers were prepared."""

    def __init__(self, engine: Engine, wanted: Wanted) -> None:
        self._engine = engine
        self._wanted = wanted
        self._sizes: dict[Digest, int] = {}  # of layers that are inflated on the way
        self._found: dict[Digest, int] = {}  # of others, of which a daemon did not tell the size

    def prepare(self, layer: Descriptor, source: Source) -> None:
        """Find out how a layer is compressed. Thread-safe.

        Raises:
            NotFound: it is absent.
            RegistryError: the daemon cannot read it.
        """
        with source.open(layer) as blob:
            if _is_zstd(blob) and not self._engine.is_podman:
                self._check_zstd(layer.digest)
            self._found[layer.digest] = blob.descriptor.size
            # over a network fewer bytes are worth more than the daemon's time
            if self._engine.host.is_near and (size := plain_size(blob)) is not None:
                self._sizes[layer.digest] = size

    def send(self, known: int) -> None:
        """Load the image without its `known` lowest layers.

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

    def _check_zstd(self, digest: Digest) -> None:
        if self._engine.api_version < _ZSTD_SINCE:
            version = ".".join(map(str, self._engine.api_version))
            words = f"API version {version} reads no zstd layers, such as {digest}"
            raise RegistryError(self._engine.name, 0, (), words)

    def _entries(self, known: int) -> Iterator[Entry]:
        raw, digest = self._wanted.config.raw, self._wanted.manifest.config.digest
        names = [f"{diff_id.encoded}.tar" for diff_id in self._wanted.config.diff_ids]
        image = {
            "Config": f"{digest.encoded}.json",
            "RepoTags": [str(self._wanted.reference)],
            "Layers": names,
        }
        yield Entry.of(f"{digest.encoded}.json", raw)
        sent = dict(
            zip(names[known:], self._wanted.manifest.layers[known:], strict=True)
        )  # each file once
        for name, layer in sent.items():
            size = self._sizes.get(layer.digest, self._found[layer.digest])
            yield Entry(name, size, layer)
        yield Entry.of("manifest.json", json.dumps([image]).encode())


def _is_zstd(blob: Blob) -> bool:
    if blob.descriptor.media_type.endswith("zstd"):
        return True
    return blob.file is not None and os.pread(blob.file, len(ZSTD_MAGIC), 0) == ZSTD_MAGIC
