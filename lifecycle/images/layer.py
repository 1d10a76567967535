"""A layer that an image has: whether it is there, and its plain tar."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing, contextmanager
from typing import Protocol, runtime_checkable

from ...oci.descriptor import Descriptor
from ...oci.digest import Digest
from ...oci.errors import DigestMismatch, NotFound
from ...publish.compression import inflated
from ...publish.packing import Hashed
from ...publish.source import Stream
from .image import Image, Layer


@contextmanager
def layer_stream(image: Image, diff_id: Digest) -> Generator[Stream]:
    """Open a layer to be read once; what was read is what it should be when there is no more.

    Raises:
        NotFound: the image, or the place that it is in, does not have it.
        InvalidContent: at the latest when a read reaches the end: it is damaged, or another one.
        RegistryError: the registry or daemon refused.
    """
    layer = image.layer(diff_id)
    if layer is None:
        raise NotFound(diff_id)
    with closing(inflated(image.source.open(layer.blob))) as plain:
        yield _Checked(Hashed(plain, diff_id.algorithm), diff_id)


def has_layer(image: Image, layer: Layer) -> bool:
    """Tell whether one of an image's layers is still there: registries lose some, by and by.

    Raises:
        RegistryError: the registry refused.
    """
    source = image.source
    if layer.blob.given.get("urls"):
        return True  # it never was in the registry
    if isinstance(source, _Asked):
        return source.has(layer.blob)
    try:
        source.open(layer.blob).close()
    except NotFound:
        return False
    return True


@runtime_checkable
class _Asked(Protocol):
    def has(self, descriptor: Descriptor, /) -> bool: ...


class _Checked:
    """A stream whose end is reached only if its digest is right."""

    def __init__(self, stream: Hashed, expected: Digest) -> None:
        self._stream = stream
        self._expected = expected

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        if not data and size and self._stream.digest != self._expected:
            raise DigestMismatch(self._expected, self._stream.digest)
        return data

    def close(self) -> None:
        self._stream.close()
