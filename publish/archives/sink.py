"""Archives in a file or on standard output, written in one stream when the image is tagged."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from ...oci.descriptor import Descriptor
from ...oci.digest import Digest
from ...oci.errors import InvalidContent
from ...oci.manifest import Manifest
from ...oci.platform import Platform
from ...store.disk import Disk
from ...store.output import replacing
from ...store.reading import open_directory
from ..checked import CheckedSource
from ..sink import Action, Image
from ..source import Source
from .forms import Form
from .layout_tar import NO_DIGESTS
from .tarstream import TarStream


class Output(Protocol):
    """Where an archive goes."""

    def write(self, archive: TarStream) -> None:
        """Write all of it."""
        ...


class ArchiveSink:
    """An archive of one form.

    Blobs are checked against their digests while they are written.

    Attributes:
        without: blobs to be left out since they are where the archive will go; those
            that describe the image are in it all the same.
    """

    sparse = False

    def __init__(self, output: Output, form: Form, without: frozenset[Digest] = NO_DIGESTS) -> None:
        self._output = output
        self._form = form
        self._archive: TarStream | None = None
        self.without = without

    def platform(self) -> Platform | None:
        """Return what the form takes of an index."""
        return self._form.platform()

    def begin(self, image: Image) -> None:
        """Learn what image it will be.

        Raises:
            InvalidContent: the form cannot hold it.
        """
        for node in image.nodes:
            if node.document is not None:
                self.without -= {node.descriptor.digest}
            if isinstance(node.document, Manifest):
                self.without -= {node.document.config.digest}
        checked = replace(image, source=CheckedSource(image.source))
        self._archive = self._form.archive(checked, self.without)

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
        assert self._archive is not None
        self._output.write(self._archive)

    def losses(self) -> Sequence[str]:
        """An archive keeps an image as it is."""
        return ()


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
