"""What a buildpack finds of its last build, below `<layers>/<buildpack>`.

Names come from labels of images, which anybody can write: none leaves the directory.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ...oci.errors import InvalidContent
from ..files.document import write_toml
from ..files.group import GroupElement
from ..files.labels import StoreMetadata
from ..golang.json import Struct
from ..layers.directories import escaped, opened_below, remove


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
        self._layers_dir = layers_dir
        self.path = layers_dir / _checked(escaped(buildpack.id), "buildpack")

    def write_store(self, store: StoreMetadata) -> None:
        """Write store.toml.

        Raises:
            InvalidContent: it has what TOML has not.
            OSError: it cannot be written.
        """
        self._write("store.toml", store.to_document())

    def write_metadata(self, layer: str, metadata: object) -> None:
        """Write `<layer>.toml`: what it said last time, but no types, which are to be chosen anew.

        Raises:
            InvalidContent: the layer's name is none of a file, or it has what TOML has not.
            OSError: it cannot be written.
        """
        document = Struct({} if metadata is None else {"metadata": metadata})
        self._write(f"{_checked(layer, 'layer')}.toml", document)

    def remove(self, layer: str) -> None:
        """Remove a layer and what was known of it; what is not there is fine."""
        name = _checked(layer, "layer")
        with suppress(FileNotFoundError), opened_below(self._layers_dir, self.path.name) as here:
            for each in (f"{name}.toml", f"{name}.sha", name):
                remove(each, here)

    def _write(self, name: str, document: Struct) -> None:
        with suppress(FileNotFoundError), opened_below(self._layers_dir, self.path.name):
            pass  # or it is a link, and what is written would lie elsewhere
        write_toml(self.path / name, document)


def _checked(name: str, what: str) -> str:
    if name in {"", ".", ".."} or "/" in name or "\0" in name:
        raise InvalidContent(f"{name[:200]!r} names no {what}")
    return name
