"""Images as the phases see them: where one is looked up, what it is, and how one is saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from ...oci.descriptor import Descriptor
from ...oci.digest import Digest
from ...oci.document import parse_object, strings
from ...oci.errors import InvalidContent
from ...oci.manifest import Manifest, parse_manifest
from ...publish.source import Source, read_document
from .config import Config
from .staging import Staging


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of an image: its diffID, and the blob that it is.

    In a daemon without blobs the descriptor is of the plain tar, so its digest is the diffID
    and its size is 0.
    """

    diff_id: Digest
    blob: Descriptor


@dataclass(frozen=True, slots=True)
class Image:
    """An image that was looked up, for one platform. Thread-safe.

    Attributes:
        name: the reference as it was given; in layout mode its directory.
        identifier: what analyzed.toml calls its reference: `repository@digest`, the identifier
            of a daemon's image without `sha256:`, or `directory@digest`.
        root: its manifest, never an index.
        config: what its config says.
        layers: lowest first.
        source: where root, config and layers can be read; of a sparse image, those it has.
        annotations: of the manifest.
    """

    name: str
    identifier: str
    root: Descriptor
    config: Config
    layers: tuple[Layer, ...]
    source: Source
    annotations: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def top_layer(self) -> Digest | None:
        """The diffID of the uppermost layer; None without layers."""
        return self.layers[-1].diff_id if self.layers else None

    def layer(self, diff_id: Digest) -> Layer | None:
        """Return the layer with this diffID."""
        return next((layer for layer in self.layers if layer.diff_id == diff_id), None)


@dataclass(frozen=True, slots=True)
class Saved:
    """What became of an image under its names.

    Attributes:
        names: those that it has now, as report.toml lists them, in the order they were given.
        digest: of its manifest; None where there is none to be had, as in a classic daemon.
        image_id: the digest of its config.
        manifest_size: in bytes; 0 where there is no manifest.
        losses: what of it is not kept there, one clause each.
        failed: names that it could not be given, and why.
    """

    names: tuple[str, ...]
    digest: Digest | None
    image_id: Digest
    manifest_size: int
    losses: tuple[str, ...] = ()
    failed: tuple[tuple[str, str], ...] = ()


class Target(Protocol):
    """Where images are looked up and saved: a layout directory, registries, or a daemon."""

    @property
    def keeps_identifier(self) -> bool:
        """Whether `save` names images by the identifier of their config, as a daemon does."""
        ...

    def find(self, reference: str) -> AbstractContextManager[Image | None]:
        """Look an image up; None if there is none. It can be read until the block is left.

        `reference` may also be an identifier that such an image had.

        Raises:
            InvalidContent: what is there is no image.
            RegistryError: a registry or daemon refused.
        """
        ...

    def name(self, reference: str) -> str:
        """Return what an image of this reference is called, whether or not there is one."""
        ...

    def check_access(self, readable: Sequence[str], writable: Sequence[str]) -> None:
        """See whether these may be read and these written, so that a build does not fail late.

        Raises:
            RegistryError: one may not; it says which.
        """
        ...

    def staging(self, reference: str) -> AbstractContextManager[Staging]:
        """Return where the layers of an image that will have this name are packed.

        For a layout that is its own pool of blobs, so that they need not be written again;
        what was not saved when the block is left is discarded.
        """
        ...

    def save(self, source: Source, references: Sequence[str]) -> Saved:
        """Give the image of `source` these names; the first one is the image's.

        Each name has all of the image, or what it had before.

        Raises:
            InvalidContent, NotFound, RegistryError, OSError: it could be given none of them.
        """
        ...


def open_image(name: str, identifier: str, source: Source, root: Descriptor) -> Image:
    """Read the manifest `root` of `source` and its config, but no layer.

    Raises:
        NotFound: the manifest or the config is absent.
        InvalidContent: this is no image for one platform, or its layers and diffIDs do not match.
    """
    manifest = parse_manifest(read_document(source, root), root)
    if not isinstance(manifest, Manifest):
        raise InvalidContent(f"{root.digest} is not an image for one platform")
    what = f"config {manifest.config.digest}"
    config = Config.parse(read_document(source, manifest.config), what)
    if len(config.diff_ids) != len(manifest.layers):
        raise InvalidContent(
            f"{what} has {len(config.diff_ids)} diff_ids, "
            f"the manifest has {len(manifest.layers)} layers"
        )
    layers = tuple(map(Layer, config.diff_ids, manifest.layers))
    document = parse_object(manifest.raw, f"manifest {root.digest}")
    annotations = strings(document, "annotations", f"manifest {root.digest}")
    return Image(name, identifier, root, config, layers, source, annotations)
