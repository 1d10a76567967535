"""Plans: what buildpacks provide and require.

Source: buildpacks/spec, buildpack.md, "Build Plan (TOML)" and "Buildpack Plan (TOML)"; platform.md,
"plan.toml".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ...oci.document import Object, inner, inners, string
from ..golang.json import Struct
from .document import read_required, read_toml, write_toml
from .group import GroupElement, elements


@dataclass(frozen=True, slots=True)
class Require:
    """What a buildpack wants to be there.

    Attributes:
        version: where it was before metadata had it.
        metadata: None where there is no such table.
    """

    name: str
    version: str = ""
    metadata: Mapping[str, object] | None = None

    @classmethod
    def from_document(cls, document: Object, what: str) -> Self:
        """Read an entry of `[[requires]]`."""
        has_metadata = document.get("metadata") is not None
        return cls(
            string(document, "name", what),
            string(document, "version", what),
            inner(document, "metadata", what) if has_metadata else None,
        )

    def to_document(self) -> Struct:
        """Return what `from_document` reads."""
        return Struct(name=self.name, version=self.version or None, metadata=self.metadata)


@dataclass(frozen=True, slots=True)
class Sections:
    """One alternative of what bin/detect writes; provided are names."""

    provides: tuple[str, ...] = ()
    requires: tuple[Require, ...] = ()

    @classmethod
    def from_document(cls, document: Object, what: str) -> Self:
        """Read the file, or an entry of `[[or]]`."""
        provides = inners(document, "provides", what)
        return cls(
            tuple(string(each, "name", f"provides of {what}") for each in provides),
            _requires(document, what),
        )


@dataclass(frozen=True, slots=True)
class PlanEntry:
    """What is required under one name, and who can provide it."""

    providers: tuple[GroupElement, ...] = ()
    requires: tuple[Require, ...] = ()

    @classmethod
    def from_document(cls, document: Object, what: str) -> Self:
        """Read an entry of `[[entries]]`."""
        return cls(elements(document, "providers", what), _requires(document, what))

    def to_document(self) -> Struct:
        """Return what `from_document` reads."""
        return Struct(
            providers=[each.to_document() for each in self.providers],
            requires=[each.to_document() for each in self.requires],
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """plan.toml, or what is left of it for the buildpacks to come."""

    entries: tuple[PlanEntry, ...] = ()

    @classmethod
    def from_document(cls, document: Object, what: str) -> Self:
        """Read plan.toml."""
        entries = inners(document, "entries", what)
        return cls(tuple(PlanEntry.from_document(each, f"entries of {what}") for each in entries))

    def to_document(self) -> Struct:
        """Return what `from_document` reads."""
        return Struct(entries=[each.to_document() for each in self.entries] or None)

    def of(self, buildpack: str) -> tuple[Require, ...]:
        """Return what a buildpack can provide."""
        return tuple(
            require
            for entry in self.entries
            if any(by.id == buildpack and not by.extension for by in entry.providers)
            for require in entry.requires
        )

    def without(self, met: Iterable[str]) -> Plan:
        """Return what is left when everything of these names is provided."""
        names = set(met)
        return Plan(
            tuple(
                entry
                for entry in self.entries
                if names.isdisjoint(require.name for require in entry.requires)
            )
        )


def read_build_plan(path: Path) -> tuple[Sections, ...] | None:
    """Read what bin/detect wrote, its alternatives in their order; None if the file is absent.

    Raises:
        InvalidContent: it is malformed.
    """
    if (document := read_toml(path)) is None:
        return None
    what = str(path)
    tables = (document, *inners(document, "or", what))
    return tuple(Sections.from_document(table, what) for table in tables)


def read_plan(path: Path) -> Plan:
    """Read plan.toml.

    Raises:
        InvalidContent: it is absent, or cannot be read or understood.
    """
    return read_required(path, "plan", Plan.from_document)


def write_plan(path: Path, plan: Plan) -> None:
    """Write plan.toml.

    Raises:
        OSError: it cannot be written.
    """
    write_toml(path, plan.to_document())


def write_buildpack_plan(path: Path, requires: Sequence[Require]) -> None:
    """Write what a buildpack can provide to the others.

    Raises:
        OSError: it cannot be written.
    """
    write_toml(path, Struct(entries=[each.to_document() for each in requires] or None))


def _requires(document: Object, what: str) -> tuple[Require, ...]:
    where = f"requires of {what}"
    return tuple(Require.from_document(each, where) for each in inners(document, "requires", what))
