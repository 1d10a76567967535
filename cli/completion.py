"""How shells complete the names of images: directory by directory where there are many."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..oci.image_layout import INDEX
from ..store.names import is_file
from .output import shown

ENOUGH = 100  # names; beyond, a shell gets directories rather than what is below them


@dataclass(frozen=True, slots=True)
class _Level:
    """What can come next."""

    names: list[str]
    directories: list[PurePosixPath]

    def __len__(self) -> int:
        return len(self.names) + len(self.directories)


def completions(root: Path, incomplete: str) -> list[str]:
    """Return the layouts below a root whose names begin so, or directories of such, with a slash.

    Where there is one directory only, what is in it is returned: a shell would end the word.
    """
    level = _Level([], [PurePosixPath()])
    while level.directories and len(level) <= ENOUGH:
        deeper = _deeper(root, level, incomplete)
        if len(deeper) > ENOUGH and len(level) > 1:
            break
        level = deeper
    return sorted([*level.names, *(f"{directory}/" for directory in level.directories)])


def _deeper(root: Path, level: _Level, incomplete: str) -> _Level:
    deeper = _Level([*level.names], [])
    for directory in level.directories:
        for name in _directories(root / directory):
            path = directory / name
            if is_file(root / path / INDEX):
                if shown(path).startswith(incomplete):
                    deeper.names.append(shown(path))
            elif _may_lead(str(path), incomplete):
                deeper.directories.append(path)
    return deeper


def _directories(directory: Path) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []  # removed meanwhile


def _may_lead(path: str, incomplete: str) -> bool:
    """Tell whether the name of a layout below a directory may begin so."""
    repository, at, digest = incomplete.partition("@")
    typed = f"{repository}/{digest.replace(':', '/')}" if at else incomplete
    is_above = typed.startswith(path) and typed[len(path) : len(path) + 1] in ("/", ":", "")
    return is_above or path.startswith(typed)
