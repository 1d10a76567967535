"""The classic image store: which layers the daemon has, and what it does not keep.

A layer need not be sent when the daemon has its ChainID, which names it together with all
layers below.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...oci.descriptor import DOCKER_MANIFEST, Descriptor
from ...oci.digest import Digest
from ...oci.document import parse_object
from ...oci.errors import RegistryError
from ..source import Source
from .engine import Engine
from .wanted import Wanted

if TYPE_CHECKING:
    from .parcel import Parcel

_VANISHED = ("no such file or directory", "not found")  # how a load says that it lacks a layer

log = logging.getLogger(__name__)


class ClassicStore:
    """The store that knows images by their config and layers by their ChainID.

    Podman's imitation is one too, but does not take an image without some layers.
    """

    def __init__(self, engine: Engine, wanted: Wanted) -> None:
        self._engine = engine
        self._wanted = wanted
        self._known = 0  # of the lowest layers
        self._parcel: Parcel | None = None  # None: the image is there

    def lacking(self) -> frozenset[Digest]:
        """Return which blobs it has to be sent; none if it has the image."""
        manifest = self._wanted.manifest
        config = manifest.config.digest
        if self._wanted.is_named or self._engine.image(str(config)) is not None:
            return frozenset()
        from .parcel import Parcel  # imported when there is something to send: 10 ms of 100

        self._parcel = Parcel(self._engine, self._wanted)
        if not self._engine.is_podman:
            self._known = self._count_known()
        return frozenset((config, *(layer.digest for layer in manifest.layers[self._known :])))

    def prepare(self, layer: Descriptor, source: Source) -> None:
        """Find out how a layer is compressed.

        Raises:
            RegistryError: the daemon cannot read it.
        """
        if self._parcel is not None:
            self._parcel.prepare(layer, source)

    def load(self) -> None:
        """Send what is lacking and the name, or only the name.

        When a layer vanished since `lacking`, everything is sent once.
        """
        wanted = self._wanted
        if self._parcel is None:
            if not wanted.is_named:
                self._engine.tag(str(wanted.manifest.config.digest), wanted.reference)
            return
        try:
            self._parcel.send(self._known)
        except RegistryError as error:
            if self._known == 0 or not any(words in error.message for words in _VANISHED):
                raise
            log.info("%s: layers vanished, sending all", self._engine.name)
            for layer in wanted.manifest.layers[: self._known]:
                self._parcel.prepare(layer, wanted.source)
            self._parcel.send(0)

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


def chain_ids(diff_ids: Sequence[Digest]) -> list[Digest]:
    """Return the ChainID of each layer, the lowest first.

    Source: image-spec, config.md, "Layer ChainID".
    """
    chain: list[Digest] = []
    for diff_id in diff_ids:
        chain.append(Digest.of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return chain
