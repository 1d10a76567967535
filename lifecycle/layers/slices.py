"""The application's directory cut into layers.

Source: platform.md, "Slices"; Go's lifecycle, layers/slices.go.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from ...oci.errors import InvalidContent
from ..golang.patterns import Pattern, cleaned
from ..golang.tar import Entry
from .tarball import LayerTar
from .trees import Tree, absolute, ancestors, walk


def slice_layers(
    app_dir: Path, patterns: Sequence[Sequence[str]], uid: int, gid: int
) -> list[LayerTar]:
    """Return a layer for each slice, given by its patterns, and one for what is left.

    A pattern is one of Go's `filepath.Match`, of paths relative to `app_dir`. What it names
    brings all that lies below, unless an earlier slice has that, and the directories above.
    Any of the layers may be empty. All becomes `uid`'s and `gid`'s, except what is above
    `app_dir`.

    Raises:
        InvalidContent: a pattern is malformed.
        OSError: something cannot be read; `filename` is its whole path.
    """
    root = absolute(app_dir)
    above = ancestors(root)
    app = _Application(root, walk(root, uid, gid))
    parts = [app.take(slice) for slice in patterns]
    return [
        LayerTar.of(f"slice-{number}", [*above, *sorted(part)] if part else [], partial(Tree, root))
        for number, part in enumerate([*parts, app.take_rest()], 1)
    ]


class _Application:
    """What lies in the directory, and what of it is in a slice already."""

    def __init__(self, root: bytes, entries: Iterable[Entry]) -> None:
        self._root = root
        self._entries = {entry.name: entry for entry in entries}
        self._below: dict[bytes, list[bytes]] = {}
        for name in self._entries:
            if name != root:
                self._below.setdefault(os.path.dirname(name), []).append(name)
        self._sliced = set[bytes]()

    def take(self, texts: Iterable[str]) -> list[Entry]:
        """Return what a slice has."""
        taken = set[bytes]()
        for text in texts:
            for name in self._matching(text):
                self._take(name, taken)
        directories = self._directories_of(taken)
        for directory in sorted(directories, key=lambda name: name.count(b"/"), reverse=True):
            if self._sliced.issuperset(self._below[directory]):
                self._sliced.add(directory)
        return [self._entries[name] for name in taken | directories]

    def take_rest(self) -> list[Entry]:
        """Return what no slice has."""
        return [entry for name, entry in self._entries.items() if name not in self._sliced]

    def _matching(self, text: str) -> Iterable[bytes]:
        clean = cleaned(os.fsencode(text))
        pattern = Pattern.parse(clean)
        start = len(self._root.rstrip(b"/")) + 1
        for name in self._entries:
            if name == self._root:
                continue
            try:
                matches = pattern.matches(name[start:])
            except InvalidContent as error:
                what = f"'{os.fsdecode(name[start:])}' matches '{os.fsdecode(clean)}'"
                raise InvalidContent(f"failed to check if {what}: {error}") from None
            if matches:
                yield name

    def _take(self, first: bytes, taken: set[bytes]) -> None:
        waiting = [first]
        while waiting:
            if (name := waiting.pop()) not in self._sliced:
                self._sliced.add(name)
                taken.add(name)
                waiting += self._below.get(name, ())

    def _directories_of(self, taken: set[bytes]) -> set[bytes]:
        """Return the directories above these that are not among them."""
        found = set[bytes]()
        for name in taken:
            while name != self._root and (name := os.path.dirname(name)) not in taken | found:
                found.add(name)
        return found
