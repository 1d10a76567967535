"""Patterns of paths, as Go's `filepath.Match` reads them.

`*` is any number of characters but `/`, `?` is one, `[a-z]` and `[^a-z]` are one of a class or
not, and may be `/`; a backslash takes the meaning from what follows.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from ...oci.errors import InvalidContent

_SLASH = 0x2F
_UNKNOWN = 0xFFFD  # what Go takes a byte for that is not UTF-8
_MALFORMED = "syntax error in pattern"


@dataclass(frozen=True, slots=True)
class _One:
    """One character: of these ranges or of none of them; any but `/` if there are no ranges."""

    ranges: tuple[tuple[int, int], ...] = ()
    negated: bool = False

    def end(self, text: bytes, at: int) -> int:
        """Return where the character ends that begins at `at`; -1 if it is not such a one."""
        if at >= len(text):
            return -1
        code, size = _character(text, at)
        if self.ranges:
            matches = any(low <= code <= high for low, high in self.ranges) != self.negated
        else:
            matches = code != _SLASH
        return at + size if matches else -1


_Elements = tuple[bytes | _One, ...]
_Chunk = tuple[bool, _Elements | None]  # whether a star is before it; None if it is malformed


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern of paths."""

    chunks: tuple[_Chunk, ...]

    @classmethod
    def parse(cls, text: bytes) -> Pattern:
        """Read a pattern; one that is malformed is refused when a path is compared with it."""
        chunks: list[_Chunk] = []
        while text:
            rest = text.lstrip(b"*")
            star = len(rest) < len(text)
            end = _chunk_end(rest)
            try:
                chunks.append((star, tuple(_elements(rest[:end]))))
            except InvalidContent:
                chunks.append((star, None))
            text = rest[end:]
        return cls(tuple(chunks))

    def matches(self, path: bytes) -> bool:
        """Tell whether all of a path is what the pattern describes.

        A star takes as little as it can, and is not tried again with more: that changes
        nothing but the time that it takes.

        Raises:
            InvalidContent: a part is malformed that is as far as the path was described by the
                parts before it.
        """
        at = 0
        for number, (star, elements) in enumerate(self.chunks, 1):
            last = number == len(self.chunks)
            if elements is None:
                raise InvalidContent(_MALFORMED)
            if star and not elements:
                return b"/" not in path[at:]
            end = _end(elements, path, at)
            while end < 0 or (last and end < len(path)):
                if not star or at >= len(path) or path[at] == _SLASH:
                    return False
                at += 1
                end = _end(elements, path, at)
            at = end
        return at == len(path)


def cleaned(path: bytes) -> bytes:
    """Return a path without what does nothing in it, as Go's `filepath.Clean` does."""
    path = os.path.normpath(path)
    return path[1:] if path.startswith(b"//") else path  # which POSIX allows to be something else


def _end(elements: _Elements, path: bytes, at: int) -> int:
    """Return where what these describe ends, from `at` on; -1 if that is something else."""
    for element in elements:
        if isinstance(element, bytes):
            at = at + len(element) if path.startswith(element, at) else -1
        else:
            at = element.end(path, at)
        if at < 0:
            break
    return at


def _chunk_end(text: bytes) -> int:
    """Return where the next star is that is one."""
    at, in_class = 0, False
    while at < len(text):
        character = text[at : at + 1]
        if character == b"\\":
            at += 1
        elif character in b"[]":
            in_class = character == b"["
        elif character == b"*" and not in_class:
            break
        at += 1
    return min(at, len(text))


def _elements(text: bytes) -> list[bytes | _One]:
    elements: list[bytes | _One] = []
    literal = b""
    while text:
        if text[:1] in b"[?" and literal:
            elements.append(literal)
            literal = b""
        if text[:1] == b"[":
            one, text = _class(text[1:])
            elements.append(one)
        elif text[:1] == b"?":
            elements.append(_One())
            text = text[1:]
        else:
            text = text.removeprefix(b"\\")
            if not text:
                raise InvalidContent(_MALFORMED)
            literal += text[:1]
            text = text[1:]
    return [*elements, literal] if literal else elements


def _class(text: bytes) -> tuple[_One, bytes]:
    """Return a class of characters, and what follows its bracket."""
    negated = text[:1] == b"^"
    text = text.removeprefix(b"^")
    ranges: list[tuple[int, int]] = []
    while text[:1] != b"]" or not ranges:
        low, text = _member(text)
        high = low
        if text[:1] == b"-":
            high, text = _member(text[1:])
        ranges.append((low, high))
    return _One(tuple(ranges), negated), text[1:]


def _member(text: bytes) -> tuple[int, bytes]:
    """Return one character of a class and what follows it, which is never nothing."""
    if text[:1] in (b"", b"-", b"]"):
        raise InvalidContent(_MALFORMED)
    text = text.removeprefix(b"\\")
    if not text:
        raise InvalidContent(_MALFORMED)
    code, size = _character(text, 0)
    if (code == _UNKNOWN and size == 1) or len(text) == size:
        raise InvalidContent(_MALFORMED)
    return code, text[size:]


def _character(text: bytes, at: int) -> tuple[int, int]:
    """Return the character at `at`, and how many bytes it has."""
    first = text[at]
    if first < 0x80:
        return first, 1
    size = 2 if first < 0xE0 else 3 if first < 0xF0 else 4
    try:
        return ord(text[at : at + size].decode()), size
    except (UnicodeDecodeError, TypeError):
        return _UNKNOWN, 1
