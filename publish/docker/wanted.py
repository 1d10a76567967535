"""What a daemon shall have, and how its image stores are asked for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ...oci.descriptor import Descriptor
from ...oci.digest import Digest
from ...oci.manifest import ImageConfig, Manifest
from ...oci.reference import Reference
from ..sink import Image
from ..source import Source
from .engine import Found


@dataclass(frozen=True, slots=True)
class Wanted:
    """One image for one platform, and its name.

    Attributes:
        there: the image that has the name now.
        kin: other images of the daemon that have some of its layers.
    """

    reference: Reference
    root: Descriptor
    manifest: Manifest
    config: ImageConfig
    source: Source
    there: Found | None
    kin: tuple[Found, ...] = ()

    @classmethod
    def of(
        cls, image: Image, reference: Reference, there: Found | None, kin: Iterable[Found] = ()
    ) -> Wanted:
        """Read what a daemon has to be told.

        Raises:
            InvalidContent: it is no image, or its config and its layers do not match.
        """
        manifest, config = image.for_one_platform()
        return cls(reference, image.root, manifest, config, image.source, there, tuple(kin))

    @property
    def is_named(self) -> bool:
        """Whether the name already is this image's."""
        ours = (self.root.digest, self.manifest.config.digest)
        return self.there is not None and self.there.digest in ours


class ImageStore(Protocol):
    """One of the ways in which a daemon keeps images; for one image, in this order."""

    def lacking(self) -> frozenset[Digest]:
        """Return which blobs it has to be sent; none if it has the image."""
        ...

    def prepare(self, layer: Descriptor, source: Source) -> None:
        """Look at a layer that will be sent. Thread-safe.

        Raises:
            NotFound: it is absent.
        """
        ...

    def load(self) -> None:
        """Send what is lacking, and give the image its name."""
        ...

    def losses(self) -> Sequence[str]:
        """Return what of the image it does not keep."""
        ...
