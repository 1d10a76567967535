"""launch.toml and build.toml: what a buildpack says of the image, and of the rest of the build.

Source: buildpacks/spec, buildpack.md, "launch.toml (TOML)", "build.toml (TOML)".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...oci.errors import InvalidContent
from ..platform_api import Version
from .metadata import Label, Process
from .table import Table


@dataclass(frozen=True, slots=True)
class BillEntry:
    """An entry of a bill of materials, in the form that SBOM files have replaced."""

    name: str
    metadata: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Launch:
    """launch.toml.

    Attributes:
        default_process: the type that the buildpack marks so; empty without one.
    """

    labels: tuple[Label, ...] = ()
    processes: tuple[Process, ...] = ()
    default_process: str = ""
    slices: tuple[tuple[str, ...], ...] = ()
    bill: tuple[BillEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class BuildResult:
    """build.toml; unmet are names of entries of the buildpack's plan."""

    unmet: tuple[str, ...] = ()
    bill: tuple[BillEntry, ...] = ()


def read_launch(path: Path, buildpack: str, api: Version) -> Launch:
    """Read the launch.toml of a buildpack of this API; without that file there is nothing.

    Raises:
        InvalidContent: it is malformed, or not what the API allows.
    """
    document = Table.read(path) or Table({}, str(path))
    tables = list(document.tables("processes"))
    defaults = [table.string("type") for table in tables if table.flag("default")]
    if len(defaults) > 1:
        raise InvalidContent("multiple default process types aren't allowed")
    return Launch(
        tuple(
            Label(each.string("key"), each.string("value")) for each in document.tables("labels")
        ),
        tuple(_process(each, buildpack, api) for each in tables),
        "".join(defaults),
        tuple(each.strings("paths") for each in document.tables("slices")),
        tuple(map(_bill_entry, document.tables("bom"))),
    )


def read_build_result(path: Path) -> BuildResult:
    """Read build.toml; without that file there is nothing.

    Raises:
        InvalidContent: it is malformed.
    """
    document = Table.read(path) or Table({}, str(path))
    return BuildResult(
        tuple(each.string("name") for each in document.tables("unmet")),
        tuple(map(_bill_entry, document.tables("bom"))),
    )


def _process(table: Table, buildpack: str, api: Version) -> Process:
    is_text = api < Version(0, 9)
    if not is_text and "direct" in table:
        raise InvalidContent("process.direct is not supported on this buildpack version")
    return Process(
        table.string("type"),
        (table.string("command"),) if is_text else table.strings("command"),
        table.strings("args"),
        direct=table.flag("direct") if is_text else True,
        buildpack_id=buildpack,
        working_dir=table.string("working-dir"),
        exec_env=table.strings("exec-env"),
    )


def _bill_entry(table: Table) -> BillEntry:
    name = table.string("name")
    if table.string("version"):
        raise InvalidContent(
            f"bom entry '{name}' has a top level version which is not allowed. "
            "The buildpack should instead set metadata.version"
        )
    return BillEntry(name, table.optional("metadata"))
