"""The names of a store's images, found by looking: the directories are the only list of them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..oci.image_layout import BLOBS, INDEX
from ..oci.pattern import Pattern


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What words have to do with a directory.

    Attributes:
        whole: those that mean all of it.
        parts: those that may mean something in it, each with the pattern for that.
    """

    whole: frozenset[str]
    parts: frozenset[tuple[str, Pattern]] = frozenset()

    def below(self, name: str) -> _Wanted:
        """Return the same of a directory in this one."""
        left = {(word, rest) for word, pattern in self.parts for rest in pattern.below(name)}
        return _Wanted(
            self.whole.union(word for word, rest in left if rest is None),
            frozenset((word, rest) for word, rest in left if rest is not None),
        )

    @property
    def names(self) -> frozenset[str] | None:
        """The only names in the directory that matter; None when any may."""
        firsts = frozenset(pattern.first for _, pattern in self.parts)
        if self.whole or None in firsts:
            return None
        return frozenset(name for name in firsts if name is not None)


class Search:
    """One walk over the layouts below a root that some words mean; without words, over all.

    Looks only where a match can be, so that one repository costs the same in a store of any
    size, and keeps no list. Layouts that come or go meanwhile are found or not.
    """

    def __init__(self, root: Path, words: Sequence[str] = ()) -> None:
        """Prepare to look.

        Raises:
            InvalidContent: a word is no pattern: see `Pattern.parse`.
        """
        self._root = root
        parts = frozenset((word, pattern) for word in words for pattern in Pattern.parse(word))
        self._wanted = _Wanted(frozenset() if words else frozenset([""]), parts)
        self._unmatched = dict.fromkeys(words)

    @property
    def unmatched(self) -> list[str]:
        """The words for which no layout was found so far."""
        return list(self._unmatched)

    def __iter__(self) -> Iterator[PurePosixPath]:
        """Yield the path below the root of every such layout that has an index, sorted."""
        waiting = [("", self._wanted)]
        while waiting:
            path, wanted = waiting.pop()
            directory = self._root / path
            names = wanted.names
            if names is None:
                is_layout, found = _listed(directory)
            else:
                found = [name for name in names if _is_directory(directory / name)]
                is_layout = BLOBS in found and is_file(directory / INDEX)
            if is_layout and wanted.whole:
                for word in wanted.whole:
                    self._unmatched.pop(word, None)
                yield PurePosixPath(path)
            for name in sorted(found, reverse=True):
                below = wanted.below(name)
                if (below.whole or below.parts) and not (is_layout and name == BLOBS):
                    waiting.append((f"{path}/{name}" if path else name, below))


def layouts_below(root: Path, top: PurePosixPath) -> Iterator[PurePosixPath]:
    """Yield the layouts at or below one path."""
    return (top / name for name in Search(root / top))


def _listed(directory: Path) -> tuple[bool, list[str]]:
    """Return whether a directory is a layout, and the directories in it."""
    try:
        with os.scandir(directory) as entries:
            found = list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return False, []  # removed meanwhile
    is_layout = any(e.name == INDEX and e.is_file(follow_symlinks=False) for e in found)
    return is_layout, [e.name for e in found if e.is_dir(follow_symlinks=False)]


def is_file(path: Path) -> bool:
    """Tell whether there is a regular file, and no symbolic link to one."""
    return stat.S_ISREG(_mode(path))


def _is_directory(path: Path) -> bool:
    return stat.S_ISDIR(_mode(path))


def _mode(path: Path) -> int:
    try:
        return os.lstat(path).st_mode
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            return 0
        raise
