"""What a buildpack finds of its last build, below `<layers>/<buildpack>`.

Names come from labels of images, which anybody can write: none leaves the directory.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from ...oci.errors import InvalidContent
from ...store.disk import open_directory
from ..files.document import write_toml
from ..files.group import GroupElement
from ..golang.json import Struct
from ..images.labels import StoreMetadata
from ..layers.directories import escaped


class Leftovers:
    """The directory of one buildpack.

    Attributes:
        buildpack: whose it is.
        path: where; it is made when something is written.
    """

    def __init__(self, layers_dir: Path, buildpack: GroupElement) -> None:
        """Say whose.

        Raises:
            InvalidContent: the buildpack's name is none of a directory.
        """
        self.buildpack = buildpack
        self.path = layers_dir / _checked(escaped(buildpack.id), "buildpack")

    def write_store(self, store: StoreMetadata) -> None:
        """Write store.toml.

        Raises:
            InvalidContent: it has what TOML has not.
        """
        write_toml(self.path / "store.toml", store.to_document())

    def write_metadata(self, layer: str, metadata: object) -> None:
        """Write `<layer>.toml`: what it said last time, but no types, which are to be chosen anew.

        Raises:
            InvalidContent: the layer's name is none of a file, or it has what TOML has not.
        """
        write_toml(self.path / f"{_checked(layer, 'layer')}.toml", _document(metadata))

    def remove(self, layer: str) -> None:
        """Remove a layer and what was known of it; what is not there is fine."""
        name = _checked(layer, "layer")
        with suppress(FileNotFoundError):
            directory = open_directory(self.path)
            try:
                for file in (f"{name}.toml", f"{name}.sha"):
                    with suppress(FileNotFoundError):
                        os.unlink(file, dir_fd=directory)
                try:
                    shutil.rmtree(name, dir_fd=directory)
                except NotADirectoryError:
                    os.unlink(name, dir_fd=directory)
            finally:
                os.close(directory)


def _document(metadata: object) -> Struct:
    return Struct({} if metadata is None else {"metadata": metadata})


def _checked(name: str, what: str) -> str:
    if name in {"", ".", ".."} or "/" in name or "\0" in name:
        raise InvalidContent(f"{name[:200]!r} names no {what}")
    return name
