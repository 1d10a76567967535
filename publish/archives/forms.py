"""What an image is as an archive: an image layout, or that in the form of `docker save`."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Protocol

from ...oci.descriptor import REF_NAME
from ...oci.digest import Digest
from ...oci.errors import InvalidContent
from ...oci.image_layout import blob_path
from ...oci.platform import Platform
from ...oci.reference import Reference
from ..layout import check_ref_name
from ..sink import Image, host_platform
from .layout_tar import IMAGE_NAME, NO_DIGESTS, layout_tar
from .tarstream import Entry, TarStream

_MANIFEST = "manifest.json"


class Form(Protocol):
    """A kind of archive, and the name that its image gets. Its bytes depend on nothing else."""

    def platform(self) -> Platform | None:
        """Return the only platform it takes of an index, or None if it takes indexes."""
        ...

    def archive(self, image: Image, without: Collection[Digest] = NO_DIGESTS) -> TarStream:
        """Return the archive of an image, some of whose blobs may be left out.

        Manifests are those of the image; every other blob is opened when it is read.

        Raises:
            NotFound: the image lacks what must be known beforehand; `name` is its digest.
            InvalidContent: the form cannot hold it.
        """
        ...


class OciForm:
    """An image layout."""

    def __init__(self, name: str = "") -> None:
        if name:
            check_ref_name(name)
        self._name = name

    def platform(self) -> Platform | None:
        """It takes indexes."""
        return None

    def archive(self, image: Image, without: Collection[Digest] = NO_DIGESTS) -> TarStream:
        """Return the archive."""
        return layout_tar(image, self._names(image), without)

    def _names(self, image: Image) -> Mapping[str, str]:
        """Return the annotations by which other tools call the image."""
        name = self._name or image.root.annotations.get(REF_NAME, "")
        return {REF_NAME: name} if name else {}


class DockerForm(OciForm):
    """One image in the form of `docker save` since version 25.

    That is an image layout with a `manifest.json`, which is all that older readers
    look at. Layers go in compressed, as all readers accept.
    """

    def __init__(self, reference: Reference | None = None) -> None:
        if reference is not None and reference.digest is not None:
            raise InvalidContent(f"{reference}: a docker archive has names by tag only")
        super().__init__(reference.tag if reference else "")
        self._reference = reference

    def platform(self) -> Platform:
        """Return what this machine runs: the format is for one platform."""
        return host_platform()

    def archive(self, image: Image, without: Collection[Digest] = NO_DIGESTS) -> TarStream:
        """Return the archive.

        Raises:
            NotFound: the image lacks its config.
            InvalidContent: it is no image, or its config and its layers do not match.
        """
        manifest, _ = image.for_one_platform()
        entry = {
            "Config": blob_path(manifest.config.digest),
            "RepoTags": [self._reference.canonical] if self._reference else None,
            "Layers": [blob_path(layer.digest) for layer in manifest.layers],
        }
        listed = Entry.of(_MANIFEST, json.dumps([entry]).encode())
        return layout_tar(image, self._names(image), without, [listed])

    def _names(self, image: Image) -> Mapping[str, str]:
        if self._reference is None:
            return super()._names(image)
        return {IMAGE_NAME: self._reference.canonical, REF_NAME: self._reference.tag}
