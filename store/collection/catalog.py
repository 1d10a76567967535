"""Digests as small numbers, and what documents mention, each read once.

For whoever looks at hundreds of thousands of blobs: 250 bytes each, and 50 µs for a manifest.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from typing import TypedDict, cast

from ...oci.descriptor import INDEXES, MANIFESTS
from ...oci.digest import CANONICAL, Digest, is_encoded
from ...oci.document import MAX_DOCUMENT
from ...oci.errors import NotFound
from ...oci.graph import MAX_DEPTH
from ..store import Store
from .roots import mentioned_by

_PREFIX = f"{CANONICAL}:"
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_SMALL = 32 << 10  # bytes; few documents have more
_ODD = (
    ArithmeticError,
    AttributeError,
    KeyError,
    NotFound,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
)


class _Entry(TypedDict):
    mediaType: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Part:
    """What another process learnt with a copy of a catalog.

    Attributes:
        known: how many digests had numbers when it was copied.
        names: of those that have got numbers since, in their order.
    """

    known: int
    names: list[str]
    sizes: array[int]
    mentioned: bytes
    others: bytes


class Catalog:
    """Numbers of digests, from 0, and what is known of each. Not thread-safe.

    Attributes:
        numbers: by what `key` returns.
        sizes: by number, of what some manifest mentions as a layer; else -1.
        mentioned: by number, 1 for what an index mentions, directly or not.
        others: by number, 1 for manifests, configs, and whatever may be one of these.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._numbers: dict[str, int] = {}
        self._below: dict[int, tuple[int, ...]] = {}
        self.numbers: Mapping[str, int] = self._numbers
        self.sizes = array("q")
        self.mentioned = bytearray()
        self.others = bytearray()

    def number(self, key: str) -> int:
        """Return the number of a digest, a new one if it has none."""
        number = self._numbers.setdefault(key, len(self.others))
        if number == len(self.others):
            self.sizes.append(-1)
            self.mentioned.append(0)
            self.others.append(0)
        return number

    def digests(self, numbers: Iterable[int]) -> dict[int, Digest]:
        """Return the digests that have these numbers."""
        wanted = set(numbers)
        return {n: _digest(key) for key, n in self._numbers.items() if n in wanted}

    def part(self, known: int) -> Part:
        """Return all that there is, of which the first `known` had numbers before."""
        names = list(islice(self._numbers, known, None))
        return Part(known, names, self.sizes, bytes(self.mentioned), bytes(self.others))

    def merge(self, part: Part) -> Sequence[int]:
        """Note what a copy learnt, and return what each of its numbers is here."""
        numbers = [*range(part.known), *map(self.number, part.names)]
        for at, number in enumerate(numbers):
            self.mentioned[number] |= part.mentioned[at]
            self.others[number] |= part.others[at]
            self.sizes[number] = max(self.sizes[number], part.sizes[at])
        return numbers

    def reach(self, name: str, raw: bytes) -> set[int]:
        """Return the numbers of what the index of a layout mentions, directly or not.

        What is not as simple as usual is read again with all checks.

        Raises:
            InvalidContent: it or what it reaches is malformed, or a manifest is absent.
        """
        found: set[int] = set()
        try:
            for entry in _entries(raw):
                found.update(self._reach(entry, 1))
        except _ODD:
            layout = self._store.layout(PurePosixPath(name))
            mentions = mentioned_by(layout, raw)
            found = {self._note(str(digest)) for digest in mentions.others}
            found |= {self._note_layer(str(d), size) for d, size in mentions.layers.items()}
        return found

    def _reach(self, entry: _Entry, depth: int) -> tuple[int, ...]:
        """Return what a manifest or an index and all below it are."""
        number = self._note(entry["digest"])
        if number not in self._below:
            kind = entry["mediaType"]
            if depth > MAX_DEPTH or (kind not in MANIFESTS and kind not in INDEXES):
                raise ValueError
            raw = self._read(entry["digest"])
            if kind in MANIFESTS:
                below = self._mentioned_by_manifest(raw)
            else:
                below = [n for e in _entries(raw) for n in self._reach(e, depth + 1)]
            self._below[number] = (number, *below)
        return self._below[number]

    def _mentioned_by_manifest(self, raw: bytes) -> list[int]:
        document = json.loads(raw)
        layers = cast("list[_Entry]", document["layers"])
        return [
            self._note(document["config"]["digest"]),
            *(self._note_layer(layer["digest"], layer["size"]) for layer in layers),
        ]

    def _note(self, text: str) -> int:
        number = self._number(text)
        self.mentioned[number] = self.others[number] = 1
        return number

    def _note_layer(self, text: str, size: int) -> int:
        number = self._number(text)
        self.mentioned[number] = 1
        self.sizes[number] = size
        return number

    def _number(self, text: str) -> int:
        name = text[len(_PREFIX) :] if text.startswith(_PREFIX) else text
        number = self._numbers.get(name)
        if number is None:
            algorithm, _, encoded = text.partition(":")
            if not is_encoded(algorithm, encoded):
                raise ValueError
            number = self.number(name)
        return number

    def _read(self, text: str) -> bytes:
        """Return a document of the pool, checked against its digest."""
        algorithm, _, encoded = text.partition(":")
        file = os.open(self._store.blobs.path_of(Digest(algorithm, encoded)), _READ)
        try:
            raw = read_document(file)
        finally:
            os.close(file)
        if len(raw) > MAX_DOCUMENT or Digest.of(raw, algorithm).encoded != encoded:
            raise ValueError
        return raw


def key(algorithm: str, encoded: str) -> str:
    """Return what stands for a digest in a catalog; of most, that is the name of the file."""
    return encoded if algorithm == CANONICAL else f"{algorithm}:{encoded}"


def read_document(file: int) -> bytes:
    """Return the first `MAX_DOCUMENT` bytes of an open file and one more, if there are so many.

    Asked for all of that at once, the kernel maps and unmaps 4 MiB for each document.
    """
    raw = os.read(file, _SMALL)
    return raw if len(raw) < _SMALL else raw + os.read(file, MAX_DOCUMENT + 1 - _SMALL)


def _digest(name: str) -> Digest:
    algorithm, colon, encoded = name.partition(":")
    return Digest(algorithm, encoded) if colon else Digest(CANONICAL, name)


def _entries(raw: bytes) -> list[_Entry]:
    found = json.loads(raw)["manifests"]
    if not isinstance(found, list):
        raise TypeError
    return cast("list[_Entry]", found)  # any other shape is an error later
