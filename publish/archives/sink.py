"""Archives in a file or on standard output, written in one stream when the image is tagged."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from ...oci.descriptor import REF_NAME, Descriptor
from ...oci.digest import Digest
from ...oci.errors import InvalidContent
from ...oci.image_layout import blob_path
from ...oci.manifest import Manifest
from ...oci.platform import Platform
from ...oci.reference import Reference
from ...store.disk import Disk
from ...store.output import replacing
from ...store.reading import open_directory
from ..checked import CheckedSource
from ..layout import check_ref_name
from ..sink import Action, Image, host_platform
from ..source import Source
from .layout_tar import IMAGE_NAME, NO_DIGESTS, layout_tar
from .tarstream import Entry, TarStream

_MANIFEST = "manifest.json"


class Output(Protocol):
    """Where an archive goes."""

    def write(self, archive: TarStream) -> None:
        """Write all of it."""
        ...


class OciArchiveSink:
    """An image layout in a tar archive. Its bytes depend on nothing but the image and the name.

    Blobs are checked against their digests while they are written.

    Attributes:
        without: blobs to be left out since they are where the archive will go; those
            that describe the image are in it all the same.
    """

    sparse = False

    def __init__(self, output: Output, name: str = "", without: frozenset[Digest] = NO_DIGESTS):
        if name:
            check_ref_name(name)
        self._output = output
        self._name = name
        self._image: Image | None = None
        self.without = without

    def platform(self) -> Platform | None:
        """It takes indexes."""
        return None

    def begin(self, image: Image) -> None:
        """Learn what image it will be."""
        self._image = image
        for node in image.nodes:
            if node.document is not None:
                self.without -= {node.descriptor.digest}
            if isinstance(node.document, Manifest):
                self.without -= {node.document.config.digest}

    def has(self, descriptor: Descriptor) -> bool:
        """Tell whether it is left out."""
        return descriptor.digest in self.without

    def put_blob(self, descriptor: Descriptor, source: Source) -> Action:
        """See that the blob is there to be written."""
        source.open(descriptor).close()
        return Action.SENT

    def put_manifest(self, descriptor: Descriptor, raw: bytes) -> None:
        """Do nothing: `begin` has told."""

    def tag(self, root: Descriptor) -> None:
        """Write the archive; a file has its name only once all of it is on disk."""
        assert self._image is not None
        image = Image(root, self._image.nodes, CheckedSource(self._image.source))
        self._output.write(self._archive(image))

    def losses(self) -> Sequence[str]:
        """An archive keeps an image as it is."""
        return ()

    def _archive(self, image: Image) -> TarStream:
        return layout_tar(image, self._names(image), self.without)

    def _names(self, image: Image) -> Mapping[str, str]:
        """Return the annotations by which other tools call the image."""
        name = self._name or image.root.annotations.get(REF_NAME, "")
        return {REF_NAME: name} if name else {}


class DockerArchiveSink(OciArchiveSink):
    """One image in the form of `docker save` since version 25.

    That is an image layout with a `manifest.json`, which is all that older readers
    look at. Layers go in compressed, as all readers accept.
    """

    def __init__(
        self,
        output: Output,
        reference: Reference | None = None,
        without: frozenset[Digest] = NO_DIGESTS,
    ) -> None:
        if reference is not None and reference.digest is not None:
            raise InvalidContent(f"{reference}: a docker archive has names by tag only")
        super().__init__(output, reference.tag if reference else "", without)
        self._reference = reference
        self._manifest: Manifest | None = None

    def platform(self) -> Platform:
        """Return what this machine runs: the format is for one platform."""
        return host_platform()

    def begin(self, image: Image) -> None:
        """Learn what image it will be.

        Raises:
            InvalidContent: it is no image, or its config and its layers do not match.
        """
        self._manifest, _ = image.for_one_platform()
        super().begin(image)

    def _archive(self, image: Image) -> TarStream:
        assert self._manifest is not None
        entry = {
            "Config": blob_path(self._manifest.config.digest),
            "RepoTags": [self._reference.canonical] if self._reference else None,
            "Layers": [blob_path(layer.digest) for layer in self._manifest.layers],
        }
        manifest = Entry.of(_MANIFEST, json.dumps([entry]).encode())
        return layout_tar(image, self._names(image), self.without, [manifest])

    def _names(self, image: Image) -> Mapping[str, str]:
        if self._reference is None:
            return super()._names(image)
        return {IMAGE_NAME: self._reference.canonical, REF_NAME: self._reference.tag}


class FileOutput:
    """A file that appears whole or not at all, in the place of one that is there.

    What is there but no regular file, such as a FIFO, is written to.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, archive: TarStream) -> None:
        """Write all of it, so that it survives power loss."""
        path = Path(os.path.realpath(self._path))  # a link stays, and its target is replaced
        if path.exists() and not path.is_file():
            with path.open("wb", buffering=0) as file:
                _write(archive, file.fileno())
            return
        directory = open_directory(path.parent)
        try:
            with replacing(directory, path.name) as new:
                _write(archive, new)
            Disk().sync(directory)
        finally:
            os.close(directory)


class StreamOutput:
    """An open file that stays somebody else's, such as standard output."""

    def __init__(self, file: int) -> None:
        if os.isatty(file):
            raise InvalidContent("an archive is not written to a terminal: name a file or a pipe")
        self._file = file

    def write(self, archive: TarStream) -> None:
        """Write all of it."""
        _write(archive, self._file)


def _write(archive: TarStream, file: int) -> None:
    for data in archive:
        left = memoryview(data)
        while left:
            left = left[os.write(file, left) :]
