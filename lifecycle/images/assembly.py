"""An image in the making: what its base has, what its previous image lends it, and what is new."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from io import BytesIO

from ...oci.descriptor import (
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    REF_NAME,
    Descriptor,
)
from ...oci.digest import Digest
from ...oci.errors import NotFound
from ...publish.layout import file_blob
from ...publish.source import Blob, Section
from ...store.blobs import BlobStore
from ...store.ingest import Ingest
from ..golang.json import Struct, encode
from .config import Config, History
from .image import Image, Layer

_OF_DOCKER = "application/vnd.docker.image.rootfs."
_OF_OCI = "application/vnd.oci.image.layer."
_AS_OCI = {
    f"{_OF_DOCKER}diff.tar": OCI_LAYER,
    f"{_OF_DOCKER}diff.tar.gzip": OCI_LAYER_GZIP,
    f"{_OF_DOCKER}diff.tar.zstd": f"{_OF_OCI}v1.tar+zstd",
    f"{_OF_DOCKER}foreign.diff.tar": f"{_OF_OCI}nondistributable.v1.tar",
    f"{_OF_DOCKER}foreign.diff.tar.gzip": f"{_OF_OCI}nondistributable.v1.tar+gzip",
}
_AS_DOCKER = {oci: docker for docker, oci in _AS_OCI.items()}

_Opener = Callable[[Descriptor], Blob]


@dataclass(frozen=True, slots=True)
class Assembled:
    """An image that was assembled, to be copied. A `Source`; thread-safe.

    Attributes:
        root: its manifest. It has no name: who saves it gives it one.
        image_id: the digest of its config.
        sparse: whether layers of its base may be missing; others may not.
        kept: layers that are believed to be what they are, where they are already.
    """

    root: Descriptor
    image_id: Digest
    config: Config
    sparse: bool
    documents: Mapping[Digest, bytes]
    openers: Mapping[Digest, _Opener]
    kept: frozenset[Digest] = frozenset()

    def resolve(self) -> Descriptor:
        """Return the manifest's descriptor."""
        return self.root

    def open(self, descriptor: Descriptor) -> Blob:
        """Open the manifest, the config or a layer; the caller closes it.

        Raises:
            NotFound: it is absent; `name` is its digest if the image may lack it.
        """
        raw = self.documents.get(descriptor.digest)
        if raw is not None:
            return Blob(BytesIO(raw), descriptor)
        try:
            return self.openers[descriptor.digest](descriptor)
        except KeyError:
            raise NotFound(descriptor.digest) from None


class Assembly:
    """Layers put upon those of a base, and a config made out of that of the base.

    The manifest is of the base's media type, and every layer's type is one of that family. It
    says nothing that depends on the image's names: all of them mean the same digest. So the name
    in a layout is only an annotation in `index.json`, which is the place that the image-spec
    ("Pre-Defined Annotation Keys") leaves to it.

    Attributes:
        base: what is built upon.
        previous: the image of the last build.
        manifest_type: the media type of the manifest, unless it has layers in zstd, for which
            Docker's have no type that clients agree on; then that is OCI's.
        config: what was decided about the config so far; its diffIDs and history grow with the
            layers.
    """

    def __init__(
        self,
        base: Image,
        previous: Image | None = None,
        *,
        manifest_type: str = "",
        lacking: bool = False,
    ) -> None:
        """Begin with the layers and the config of `base`.

        A `manifest_type` that is given is that of the manifest, whatever the base's is. An
        image that is `lacking` goes without the base's layers where those are not yet.
        """
        docker = (manifest_type or base.root.media_type) == DOCKER_MANIFEST
        self.base = base
        self.previous = previous
        self.manifest_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
        self.config = replace(base.config, history=base.config.normal_history)
        self._annotations = {k: v for k, v in base.annotations.items() if k != REF_NAME}
        self._layers = [layer.blob for layer in base.layers]
        self._openers: dict[Digest, _Opener] = {
            layer.blob.digest: _absent if lacking else base.source.open for layer in base.layers
        }
        self._kept: set[Digest] = set()

    def add(self, layer: Layer, content: Ingest | BlobStore, created_by: str) -> None:
        """Put a layer on top: a new one, which waits in an ingest, or one that a pool has.

        The ingest stays the caller's to close, once the image is saved.
        """

        def waiting(descriptor: Descriptor) -> Blob:
            assert isinstance(content, Ingest)
            return Blob(Section(content.file, 0, content.size), descriptor, content.file, content)

        def present(descriptor: Descriptor) -> Blob:
            assert isinstance(content, BlobStore)
            return file_blob(content.open(descriptor.digest), descriptor)

        opener = waiting if isinstance(content, Ingest) else present
        self._put(layer, opener, History(created_by))

    def reuse(self, diff_id: Digest, created_by: str) -> None:
        """Put a layer of the previous image on top; nobody looks yet whether it is still there.

        Raises:
            NotFound: there is no previous image, or it has no such layer; `name` is the diffID.
        """
        layer = self.previous.layer(diff_id) if self.previous else None
        if self.previous is None or layer is None:
            raise NotFound(diff_id)
        self.lend(self.previous, layer, History(created_by))

    def lend(self, image: Image, layer: Layer, history: History, *, kept: bool = False) -> None:
        """Put a layer of another image on top, which must be there when this one is copied.

        A layer that is `kept` stays where it is, so that nobody needs to look at it again.
        """
        if kept:
            self._kept.add(layer.blob.digest)

        def lent(descriptor: Descriptor) -> Blob:
            try:
                return image.source.open(descriptor)
            except NotFound:  # of another name than that of a layer which an image may lack
                raise NotFound(f"layer {layer.diff_id} of {image.name}") from None

        self._put(layer, lent, history)

    def annotate(self, name: str, value: str) -> None:
        """Set an annotation of the manifest."""
        self._annotations[name] = value

    def finish(self, created: str, *, with_history: bool) -> Assembled:
        """Return the image, all of which was made at one time.

        Without history its config does not tell how layers came to be.
        """
        config = self.config.saved_at(created, with_history=with_history)
        raw = config.encode()
        has_zstd = any(layer.media_type.endswith("zstd") for layer in self._layers)
        manifest_type = OCI_MANIFEST if has_zstd else self.manifest_type
        kind = OCI_CONFIG if manifest_type == OCI_MANIFEST else DOCKER_CONFIG
        about = Descriptor(kind, Digest.of(raw), len(raw))
        layers = [_retyped(layer, manifest_type) for layer in self._layers]
        manifest = manifest_of(manifest_type, about, layers, self._annotations)
        root = Descriptor(
            manifest_type, Digest.of(manifest), len(manifest), platform=config.platform
        )
        documents = {root.digest: manifest, about.digest: raw}
        sparse = self.base.source.sparse
        kept = frozenset(self._kept)
        return Assembled(root, about.digest, config, sparse, documents, dict(self._openers), kept)

    def _put(self, layer: Layer, opener: _Opener, history: History) -> None:
        self._layers.append(layer.blob)
        self._openers[layer.blob.digest] = opener
        self.config = replace(
            self.config,
            diff_ids=(*self.config.diff_ids, layer.diff_id),
            history=(*self.config.history, history),
        )


def _absent(descriptor: Descriptor) -> Blob:
    raise NotFound(descriptor.digest)


def manifest_of(
    media_type: str,
    config: Descriptor,
    layers: list[Descriptor],
    annotations: Mapping[str, str],
) -> bytes:
    """Return the bytes of a manifest, as go-containerregistry writes them."""
    document = Struct(
        schemaVersion=2,
        mediaType=media_type,
        config=_document(config),
        layers=[_document(layer) for layer in layers],
        annotations=annotations,
    )
    return encode(document.without_empty("annotations"))


def _document(descriptor: Descriptor) -> Struct:
    given = descriptor.given
    return Struct(
        mediaType=descriptor.media_type,
        size=descriptor.size,
        digest=str(descriptor.digest),
        data=given.get("data"),
        urls=given.get("urls"),
        annotations=descriptor.annotations,
    ).without_empty("data", "urls", "annotations")


def _retyped(layer: Descriptor, manifest_type: str) -> Descriptor:
    """Return a layer with a media type that goes with the manifest's; others stay what they are."""
    types = _AS_OCI if manifest_type == OCI_MANIFEST else _AS_DOCKER
    return replace(layer, media_type=types.get(layer.media_type, layer.media_type))
