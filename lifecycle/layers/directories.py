"""What buildpacks left in `<layers>/<buildpack>`: layers, what is said about them, and a store.

Source: buildpacks/spec, buildpack.md, "Layer Types", "Layer Content Metadata (<layer>.toml)".
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ...oci.document import flag, inner
from ...oci.errors import InvalidContent
from ...store.reading import open_directory, open_file
from ..files.document import read_toml
from ..files.group import GroupElement
from ..files.labels import LayerMetadata, StoreMetadata

TYPES = ("build", "launch", "cache")

_NO_LAYERS = {"launch", "build", "store"}  # TOML files that are about no layer
_MAX_SHA = 1024  # bytes


@dataclass(frozen=True, slots=True)
class LayerDir:
    """A layer that a buildpack made, or one that it wants from the previous image.

    Attributes:
        identifier: `<buildpack>:<layer>`.
        path: where its content is, or would be; beside it are `<layer>.toml` and `<layer>.sha`.
        present: whether it has content.
        metadata: what these files say; None if they are malformed.
    """

    identifier: str
    path: Path
    present: bool
    metadata: LayerMetadata | None

    @property
    def name(self) -> str:
        """What the buildpack calls it."""
        return self.path.name

    @property
    def launch(self) -> bool:
        """Whether it belongs into the image."""
        return self.metadata is not None and self.metadata.launch

    @property
    def cache(self) -> bool:
        """Whether it belongs into the cache."""
        return self.metadata is not None and self.metadata.cache


@dataclass(frozen=True, slots=True)
class BuildpackDir:
    """Everything that one buildpack left.

    Attributes:
        layers: in the order of their identifiers.
        store: what it wrote into store.toml; None without that file.
    """

    buildpack: GroupElement
    path: Path
    layers: tuple[LayerDir, ...]
    store: StoreMetadata | None

    def check(self) -> None:
        """Refuse layers whose files are malformed.

        Raises:
            InvalidContent: there are some; it names all of them.
        """
        malformed = [layer.identifier for layer in self.layers if layer.metadata is None]
        if malformed:
            raise InvalidContent(f"failed to parse metadata for layers '[{' '.join(malformed)}]'")


def escaped(identifier: str) -> str:
    """Return what the directory of a buildpack is called."""
    return identifier.replace("/", "_")


@contextmanager
def opened_below(layers_dir: Path, *names: str, make: bool = False) -> Generator[int]:
    """Open a directory below that of all layers, through no symbolic link that somebody put there.

    With `make` those that are missing are made; the umask does not choose their modes.

    Raises:
        OSError: it is absent, no directory, or cannot be made.
    """
    if make:
        layers_dir.mkdir(parents=True, exist_ok=True)
    directory = open_directory(layers_dir.resolve())
    try:
        for name in names:
            below = _made(name, directory) if make else open_directory(name, directory)
            os.close(directory)
            directory = below
        yield directory
    finally:
        os.close(directory)


def remove(name: str, directory: int) -> None:
    """Remove what has a name, with all that is below it; what is not there is fine."""
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(found.st_mode):
        shutil.rmtree(name, dir_fd=directory)
    else:
        os.unlink(name, dir_fd=directory)


def read_buildpack_dir(
    layers_dir: Path, buildpack: GroupElement, debug: Callable[[str], None]
) -> BuildpackDir:
    """Read what a buildpack left; nothing, if it has no directory. `debug` hears each name.

    Directories are layers, and so are TOML files that are not about all of them. What
    other files are there, such as SBOMs, means nothing here.

    Raises:
        InvalidContent: store.toml is malformed.
        OSError: something cannot be read.
    """
    path = layers_dir / escaped(buildpack.id)
    debug(f"Reading buildpack directory: {path}")
    names = set[str]()
    store = None
    for name, is_directory in _entries(path):
        debug(f"Reading buildpack directory item: {name}")
        stem, extension = os.path.splitext(name)
        if is_directory:
            names.add(name)
        elif extension == ".toml" and stem not in _NO_LAYERS:
            names.add(stem)
        elif name == "store.toml":
            store = _read_store(path / name, buildpack.id)
    layers = [_read_layer(path / name, f"{buildpack.id}:{name}") for name in names]
    layers.sort(key=lambda layer: os.fsencode(layer.identifier))
    return BuildpackDir(buildpack, path, tuple(layers), store)


def read_layer_metadata(file: Path) -> LayerMetadata:
    """Read `<layer>.toml`; without that file a layer has no type.

    Raises:
        InvalidContent: it is malformed, or has the types where they were before API 0.6.
    """
    document = read_toml(file) or {}
    if any(name in document for name in TYPES):
        raise InvalidContent(
            f"the launch, cache and build flags should be in the types table of {file}"
        )
    types, what = inner(document, "types", str(file)), f"types of {file}"
    build, launch, cache = (flag(types, name, what) for name in TYPES)
    return LayerMetadata("", document.get("metadata"), build, launch, cache)


def _entries(path: Path) -> list[tuple[str, bool]]:
    try:
        with os.scandir(path) as entries:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    except FileNotFoundError:
        return []
    return sorted(found, key=lambda entry: os.fsencode(entry[0]))


def _read_layer(path: Path, identifier: str) -> LayerDir:
    metadata: LayerMetadata | None
    try:
        metadata = read_layer_metadata(path.with_name(f"{path.name}.toml"))
        metadata = replace(metadata, sha=_read_sha(path.with_name(f"{path.name}.sha")))
    except (InvalidContent, OSError):
        metadata = None
    return LayerDir(identifier, path, path.exists(), metadata)


def _read_sha(file: Path) -> str:
    directory = open_directory(file.parent)
    try:
        with open(open_file(file.name, directory), "rb") as stream:
            return stream.read(_MAX_SHA).decode()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise InvalidContent(f"{file}: {error}") from error
    finally:
        os.close(directory)


def _made(name: str, above: int) -> int:
    try:
        os.mkdir(name, dir_fd=above)
    except FileExistsError:
        return open_directory(name, above)
    directory = open_directory(name, above)
    os.fchmod(directory, 0o755)
    return directory


def _read_store(file: Path, buildpack: str) -> StoreMetadata:
    try:
        return StoreMetadata.from_document(read_toml(file) or {}, str(file))
    except InvalidContent as error:
        raise InvalidContent(
            f'failed decoding store.toml for buildpack "{buildpack}": {error}'
        ) from error
