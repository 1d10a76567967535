"""Plans: what buildpacks provide and require.

Source: buildpacks/spec, buildpack.md, "Build Plan (TOML)" and "Buildpack Plan (TOML)"; platform.md,
"plan.toml".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...oci.errors import InvalidContent
from ..gojson import Struct
from .document import write_toml
from .group import GroupElement
from .table import Table


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


@dataclass(frozen=True, slots=True)
class Sections:
    """One alternative of what bin/detect writes; provided are names."""

    provides: tuple[str, ...] = ()
    requires: tuple[Require, ...] = ()


@dataclass(frozen=True, slots=True)
class PlanEntry:
    """What is required under one name, and who can provide it."""

    providers: tuple[GroupElement, ...] = ()
    requires: tuple[Require, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """plan.toml, or what is left of it for the buildpacks to come."""

    entries: tuple[PlanEntry, ...] = ()

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
    if (document := Table.read(path)) is None:
        return None
    return tuple(
        Sections(
            tuple(each.string("name") for each in table.tables("provides")),
            tuple(map(_require, table.tables("requires"))),
        )
        for table in (document, *document.tables("or"))
    )


def read_plan(path: Path) -> Plan:
    """Read plan.toml.

    Raises:
        InvalidContent: it is absent or malformed.
    """
    try:
        entries = (
            PlanEntry(
                tuple(map(_provider, entry.tables("providers"))),
                tuple(map(_require, entry.tables("requires"))),
            )
            for entry in Table.read_required(path).tables("entries")
        )
        return Plan(tuple(entries))
    except InvalidContent as error:
        raise InvalidContent(f"failed to read plan file: {error}") from error


def write_plan(path: Path, plan: Plan) -> None:
    """Write plan.toml."""
    entries = [
        Struct(
            providers=[
                Struct(id=by.id, version=by.version, extension=by.extension or None)
                for by in entry.providers
            ],
            requires=[_required(require) for require in entry.requires],
        )
        for entry in plan.entries
    ]
    write_toml(path, Struct(entries=entries or None))


def write_buildpack_plan(path: Path, requires: Sequence[Require]) -> None:
    """Write what a buildpack can provide to the others."""
    write_toml(path, Struct(entries=[_required(require) for require in requires] or None))


def _required(require: Require) -> Struct:
    return Struct(name=require.name, version=require.version or None, metadata=require.metadata)


def _require(table: Table) -> Require:
    return Require(table.string("name"), table.string("version"), table.optional("metadata"))


def _provider(table: Table) -> GroupElement:
    return GroupElement(
        table.string("id"), table.string("version"), extension=table.flag("extension")
    )
