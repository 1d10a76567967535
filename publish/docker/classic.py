"""A Docker daemon as sink: a docker-archive stream without the layers it already has.

What a load accepts is in moby's image/tarexport/load.go: a layer may be left out of the
archive when the daemon has its ChainID, which names it together with all layers below.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...oci.descriptor import Descriptor
from ...oci.digest import Digest
from ...oci.errors import InvalidContent, RegistryError
from ...oci.manifest import ImageConfig, Manifest
from ...oci.platform import Platform
from ...oci.reference import Reference
from ..sink import Action, Image
from ..source import Source, read_document
from ..tarstream import Entry, TarStream
from .engine import Engine

_ZSTD_SINCE = (1, 42)  # API version of the first release whose load reads zstd layers
_VANISHED = ("no such file or directory", "not found")  # how a load says that it lacks a layer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What one image needs.

    Attributes:
        known: how many of its lowest layers the daemon has.
        unchanged: whether it has the whole image.
    """

    image: Image
    manifest: Manifest
    config: ImageConfig
    known: int
    unchanged: bool


class DaemonSink:
    """A name in a Docker daemon with the classic image store.

    Blobs go over as they are, in one stream, when the image is tagged.
    """

    sparse = False

    def __init__(self, engine: Engine, reference: Reference) -> None:
        if reference.digest is not None:
            raise InvalidContent(f"{reference}: a docker daemon gives names by tag only")
        self._engine = engine
        self._reference = reference
        self._plan: _Plan | None = None
        self._needed: frozenset[Digest] = frozenset()

    def platform(self) -> Platform:
        """Return what the daemon runs on."""
        return self._engine.platform()

    def begin(self, image: Image) -> None:
        """Find out which layers the daemon lacks.

        Raises:
            InvalidContent: it is no image, or its config and its layers do not match.
            RegistryError: the daemon cannot read a layer that it lacks.
        """
        manifest = image.nodes[-1].document
        if not isinstance(manifest, Manifest):
            raise InvalidContent(f"{image.root.digest} is not an image for one platform")
        what = f"config {manifest.config.digest}"
        config = ImageConfig.parse(read_document(image.source, manifest.config), what)
        if len(config.diff_ids) != len(manifest.layers):
            raise InvalidContent(
                f"{what} has {len(config.diff_ids)} diff_ids, "
                f"the manifest has {len(manifest.layers)} layers"
            )
        unchanged = self._engine.image(str(manifest.config.digest)) is not None
        known = len(manifest.layers) if unchanged else self._count_known(config)
        self._plan = _Plan(image, manifest, config, known, unchanged)
        lacking = manifest.layers[known:]
        if not unchanged:
            self._needed = frozenset(d.digest for d in (manifest.config, *lacking))
        self._refuse_zstd(lacking)

    def has(self, descriptor: Descriptor) -> bool:
        """Tell whether the daemon needs it for the image."""
        if descriptor.is_manifest:
            return self._plan is not None and self._plan.unchanged
        return descriptor.digest not in self._needed

    def put_blob(self, descriptor: Descriptor, source: Source) -> Action:
        """See that the blob is there to be sent."""
        source.open(descriptor).close()
        return Action.SENT

    def put_manifest(self, descriptor: Descriptor, raw: bytes) -> None:
        """Do nothing: a daemon does not keep manifests."""

    def tag(self, root: Descriptor) -> None:
        """Send what the daemon lacks and the name, or only the name.

        When a layer vanished since `begin`, everything is sent once.
        """
        plan = self._plan
        if plan is None:
            return
        if plan.unchanged:
            self._engine.tag(str(plan.manifest.config.digest), self._reference)
            return
        try:
            self._load(plan, plan.known)
        except RegistryError as error:
            if plan.known == 0 or not any(words in error.message for words in _VANISHED):
                raise
            log.info("%s: layers vanished, sending all", self._engine.name)
            self._load(plan, 0)

    def losses(self) -> Sequence[str]:
        """Return what a load in docker's own format drops."""
        return ("manifest digest", "annotations", "media types", "digests of compressed layers")

    def _count_known(self, config: ImageConfig) -> int:
        """Return how many of the lowest layers some image of the daemon has.

        The image that has the name now is asked first: it mostly decides.
        """
        wanted = chain_ids(config.diff_ids)
        found: set[Digest] = set()
        for name in (str(self._reference), None):
            for other in [name] if name else self._engine.images():
                diff_ids = self._engine.image(other)
                found.update(chain_ids(diff_ids or ()))
                if not wanted or wanted[-1] in found:
                    return len(wanted)
        known = (count for count in range(len(wanted), 0, -1) if wanted[count - 1] in found)
        return next(known, 0)

    def _refuse_zstd(self, layers: Iterable[Descriptor]) -> None:
        for layer in layers:
            if layer.media_type.endswith("zstd") and self._engine.api_version < _ZSTD_SINCE:
                version = ".".join(map(str, self._engine.api_version))
                words = f"API version {version} reads no zstd layers, such as {layer.digest}"
                raise RegistryError(self._engine.name, 0, (), words)

    def _load(self, plan: _Plan, known: int) -> None:
        layers = plan.manifest.layers
        config = f"{plan.manifest.config.digest.encoded}.json"
        names = [f"{diff_id.encoded}.tar" for diff_id in plan.config.diff_ids]
        tags = [str(self._reference)]
        manifest = json.dumps([{"Config": config, "RepoTags": tags, "Layers": names}]).encode()
        sent = dict(zip(names[known:], layers[known:], strict=True))  # each file once
        entries = [Entry.of(config, plan.config.raw)]
        entries += [Entry.of(name, layer) for name, layer in sent.items()]
        entries.append(Entry.of("manifest.json", manifest))
        self._engine.load(TarStream(entries, plan.image.source))


def chain_ids(diff_ids: Sequence[Digest]) -> list[Digest]:
    """Return the ChainID of each layer, the lowest first.

    Source: image-spec, config.md, "Layer ChainID".
    """
    chain: list[Digest] = []
    for diff_id in diff_ids:
        chain.append(Digest.of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return chain
