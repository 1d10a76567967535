"""Patterns of names: what a user's word may mean when it need not be one image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Self

from .errors import InvalidContent
from .reference import DEFAULT_NAMESPACE, DEFAULT_REGISTRY, is_registry
from .wording import quoted

ANY_DEPTH = "**"

_WILD = frozenset("*?[")


@dataclass(frozen=True, slots=True, order=True)
class Pattern:
    """Elements of a path from the layout root; whatever lies at or below such a path matches.

    Within an element `*`, `?` and `[…]` mean what they mean in a shell; `**` stands for any
    number of elements.

    >>> [str(pattern) for pattern in Pattern.parse("alpine")]
    ['alpine', 'index.docker.io/alpine', 'index.docker.io/library/alpine']
    >>> [str(pattern) for pattern in Pattern.parse("e.x/app:1.*")]
    ['e.x/app/1.*', 'e.x/app:1.*']
    """

    elements: tuple[str, ...]

    @classmethod
    def parse(cls, word: str) -> list[Self]:
        """Return what a word may mean: a registry, a repository, a reference or a path.

        Without a tag or digest it means all of a repository. Docker's defaults are filled in.

        Raises:
            InvalidContent: it leads out of the root, or has empty elements.
        """
        meanings = {_elements(word.removesuffix("/"), word)}
        name, at, digest = word.removesuffix("/").partition("@")
        above, slash, last = name.rpartition("/")
        last, colon, tag = last.partition(":")
        identifier = digest.replace(":", "/", 1) if at else tag
        text = f"{above}{slash}{last}" + (f"/{identifier}" if at or colon else "")
        if slash and is_registry(above.partition("/")[0]):
            meanings.add(_elements(text, word))
        else:
            spaces = [""] if slash else ["", f"{DEFAULT_NAMESPACE}/"]
            meanings.update(_elements(f"{DEFAULT_REGISTRY}/{s}{text}", word) for s in spaces)
            meanings.add(_elements(text, word))
        return sorted(map(cls, meanings | set(_by_registry(meanings))))

    def __str__(self) -> str:
        return "/".join(self.elements)

    @property
    def first(self) -> str | None:
        """The one name that can stand first; None when several can."""
        element = self.elements[0]
        return None if _WILD.intersection(element) else element

    def below(self, name: str) -> Iterator[Pattern | None]:
        """Yield what has to match inside a directory of this name; None when all of it does."""
        element, *rest = self.elements
        if element == ANY_DEPTH:
            yield self
            if not rest:
                yield None
            else:
                yield from Pattern(tuple(rest)).below(name)
        elif name == element or fnmatchcase(name, element):  # [::1]:5000 is a registry
            yield Pattern(tuple(rest)) if rest else None


def _elements(text: str, word: str) -> tuple[str, ...]:
    elements = tuple(text.split("/"))
    if not text.isprintable() or any(element in ("", ".", "..") for element in elements):
        raise InvalidContent(f"not a name or pattern of names: {quoted(word)}")
    return elements


def _by_registry(meanings: set[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """Yield what docker.io stands for."""
    for registry, *rest in meanings:
        if registry == "docker.io":
            yield (DEFAULT_REGISTRY, *rest)
            if len(rest) == 1:
                yield (DEFAULT_REGISTRY, DEFAULT_NAMESPACE, *rest)
