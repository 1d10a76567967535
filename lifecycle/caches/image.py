"""A cache in an image of a registry, which has the layers of a build and nothing else.

Source: Go's lifecycle, cache/image_cache.go.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from typing import Self

from ...oci.descriptor import OCI_MANIFEST, Descriptor
from ...oci.digest import Digest
from ...oci.errors import InvalidContent, NotFound, RegistryError
from ...publish.compression import Compression
from ...publish.sink import host_platform
from ...publish.source import Blob, Stream
from ..files.labels import CACHE_METADATA, CacheMetadata
from ..images.assembly import Assembly
from ..images.config import Config, moment
from ..images.image import Image, Layer, Target
from ..images.layer import has_layer, layer_stream
from ..images.staging import Staging
from ..layers.packer import LayerPacker, PackedLayer
from ..layers.tarball import LayerTar
from .cache import Cached

log = logging.getLogger(__name__)

_EMPTY = LayerTar.of("empty", ())  # some registries take no image without layers


@contextmanager
def open_image_cache(
    reference: str,
    target: Target,
    compression: Compression,
    jobs: int = 0,
    delete: Callable[[str], None] | None = None,
) -> Generator[ImageCache]:
    """Open the cache of an image, which need not exist yet.

    `delete`, given its identifier, deletes an image that another one has taken the place of.

    Raises:
        RegistryError: the registry refused.
    """
    with ExitStack() as stack:
        try:
            image = stack.enter_context(target.find(reference))
        except InvalidContent:  # it is written anew
            image = None
        staging = stack.enter_context(target.staging(reference))
        packer = stack.enter_context(LayerPacker(staging.blobs, compression, jobs=jobs))
        yield ImageCache(reference, target, image, staging, packer, delete)


class ImageCache:
    """Layers in an image; what it shares with the image before is not sent again."""

    def __init__(
        self,
        reference: str,
        target: Target,
        image: Image | None,
        staging: Staging,
        packer: LayerPacker,
        delete: Callable[[str], None] | None,
    ) -> None:
        self._reference = reference
        self._target = target
        self._image = image
        self._staging = staging
        self._packer = packer
        self._delete = delete
        self._layers: dict[Digest, PackedLayer | Layer] = {}

    @property
    def name(self) -> str:
        """The image's reference."""
        return self._reference

    @property
    def exists(self) -> bool:
        """Whether there is such an image."""
        return self._image is not None

    def metadata(self) -> CacheMetadata:
        """Return what the image's label says; empty if that cannot be understood."""
        label = self._image.config.labels.get(CACHE_METADATA, "") if self._image else ""
        try:
            return CacheMetadata.parse(label.encode())
        except (InvalidContent, UnicodeEncodeError):
            return CacheMetadata()

    @contextmanager
    def open(self, diff_id: Digest) -> Generator[Stream]:
        """Open the plain tar of a layer, which is checked while it is read.

        Raises:
            InvalidContent: it is absent; or, at the latest at its end, not what it should be.
            RegistryError: the registry refused.
        """
        if self._image is None:
            raise _absent(diff_id)
        with ExitStack() as stack:
            try:
                stream = stack.enter_context(layer_stream(self._image, diff_id))
            except NotFound as error:
                raise _absent(diff_id) from error
            yield stream

    def add(self, tar: LayerTar, likely: Digest | None = None) -> Cached:
        """Take a layer, which had the diffID `likely` last time; that one is not packed again.

        Raises:
            InvalidContent: a file became shorter while it was read.
            OSError: the layer cannot be read, or the disk is full.
            RegistryError: the registry refused.
        """
        packed = self._packer.pack(tar, (likely,) if likely else ()).result()
        if packed.blob is not None:
            self._layers[packed.diff_id] = packed
            return Cached(packed.diff_id, reused=False)
        if self.keep(packed.diff_id):
            return Cached(packed.diff_id, reused=True)
        packed = self._packer.pack(tar).result()
        self._layers[packed.diff_id] = packed
        return Cached(packed.diff_id, reused=False, fault=str(_absent(packed.diff_id)))

    def keep(self, diff_id: Digest) -> bool:
        """Take a layer over from the image before, unread; False if the registry lost it."""
        layer = self._image.layer(diff_id) if self._image else None
        if self._image is None or layer is None:
            return False
        if not has_layer(self._image, layer):
            return False
        self._layers.setdefault(diff_id, layer)
        return True

    def commit(self, metadata: CacheMetadata | None = None) -> None:
        """Save the image, at once.

        Raises:
            InvalidContent, NotFound, OSError, RegistryError: it stays what it was.
        """
        if not self._layers:
            self.add(_EMPTY)
        labels = {} if metadata is None else {CACHE_METADATA: metadata.dump().decode()}
        config = Config(host_platform().architecture, labels=labels)
        assembly = Assembly(empty_image(self._reference, config), self._image)
        for diff_id, layer in self._layers.items():
            if isinstance(layer, PackedLayer):
                assert layer.blob is not None
                content = layer.ingest or self._staging.blobs
                assembly.add(Layer(diff_id, layer.blob), content, "")
            else:
                assembly.reuse(diff_id, "")
        image = assembly.finish(moment(None), with_history=False)
        saved = self._target.save(image, [self._reference])
        old = self._image
        if self._delete is not None and old is not None and old.root.digest != saved.digest:
            try:
                self._delete(old.identifier)
            except RegistryError as error:
                log.warning("Unable to delete cache image: %s", error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._layers.clear()


class _Nothing:
    """The source of an image without layers, of which nothing is asked."""

    sparse = False

    def resolve(self) -> Descriptor:
        return Descriptor(OCI_MANIFEST, Digest.of(b""), 0)

    def open(self, descriptor: Descriptor) -> Blob:
        return Blob(BytesIO(), descriptor)


def empty_image(name: str, config: Config) -> Image:
    """Return an image without layers, to put some upon."""
    source = _Nothing()
    return Image(name, "", source.resolve(), config, (), source)


def _absent(diff_id: Digest) -> InvalidContent:
    return InvalidContent(f"failed to find cache layer with SHA '{diff_id}'")
