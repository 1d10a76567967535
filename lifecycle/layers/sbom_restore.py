"""SBOMs of the last build, beside the layers that they are about.

Source: buildpacks/spec, buildpack.md, "Software-Bill-of-Materials"; Go's lifecycle,
internal/layer/sbom_restorer.go.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ...oci.errors import InvalidContent
from ...store.output import replacing
from ...store.reading import READ_SIZE, open_directory, open_file
from ..files.group import GroupElement
from .directories import escaped, opened_below, remove
from .sbom import SBOM

KINDS = ("cache", "launch")  # what is in both is what the image has

_FILE = re.compile(r"sbom.+json")


def restore_sboms(layers_dir: Path, buildpacks: Iterable[GroupElement]) -> None:
    """Copy `sbom/{cache,launch}/<bp>/<layer>/sbom.*.json` to `<bp>/<layer>.sbom.*.json`.

    Only for these buildpacks, if they have a directory. Afterwards `sbom` is gone.

    Raises:
        OSError: the disk refused.
    """
    for kind in KINDS:
        for buildpack in buildpacks:
            name = escaped(buildpack.id)
            with (
                suppress(FileNotFoundError, NotADirectoryError),
                opened_below(layers_dir, SBOM, kind, name) as source,
                opened_below(layers_dir, name) as target,
            ):
                _copy_all(source, target)
    with opened_below(layers_dir) as directory:
        remove(SBOM, directory)


def _copy_all(source: int, target: int) -> None:
    """Copy the SBOMs of one buildpack between open directories; a link is none."""
    for layer in sorted(os.listdir(source)):
        try:
            directory = open_directory(layer, source)
        except NotADirectoryError:
            continue  # of the buildpack itself
        try:
            for name in sorted(filter(_FILE.fullmatch, os.listdir(directory))):
                with suppress(InvalidContent):
                    _copy(directory, name, target, f"{layer}.{name}")
        finally:
            os.close(directory)


def _copy(source: int, name: str, target: int, new: str) -> None:
    file = open_file(name, source)
    try:
        with replacing(target, new) as copy:
            while block := os.read(file, READ_SIZE):
                os.write(copy, block)
    finally:
        os.close(file)
