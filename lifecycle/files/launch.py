"""launch.toml and build.toml: what a buildpack says of the image, and of the rest of the build.

Source: buildpacks/spec, buildpack.md, "launch.toml (TOML)", "build.toml (TOML)".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...oci.document import Object, flag, inners, string, texts
from ...oci.errors import InvalidContent
from ..platform_api import Version
from .document import read_toml
from .metadata import BillEntry, Label, Process


@dataclass(frozen=True, slots=True)
class Launch:
    """launch.toml.

    Attributes:
        default: the place of the process that the buildpack marks so; None without one.
    """

    labels: tuple[Label, ...] = ()
    processes: tuple[Process, ...] = ()
    default: int | None = None
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
    document, what = read_toml(path) or {}, str(path)
    tables = inners(document, "processes", what)
    defaults = [place for place, each in enumerate(tables) if flag(each, "default", what)]
    if len(defaults) > 1:
        raise InvalidContent("multiple default process types aren't allowed")
    return Launch(
        tuple(Label.from_document(each, what) for each in inners(document, "labels", what)),
        tuple(_process(each, buildpack, api, what) for each in tables),
        defaults[0] if defaults else None,
        tuple(texts(each, "paths", what) for each in inners(document, "slices", what)),
        _bill(document, what),
    )


def read_build_result(path: Path) -> BuildResult:
    """Read build.toml; without that file there is nothing.

    Raises:
        InvalidContent: it is malformed.
    """
    document, what = read_toml(path) or {}, str(path)
    unmet = inners(document, "unmet", what)
    return BuildResult(tuple(string(each, "name", what) for each in unmet), _bill(document, what))


def _process(document: Object, buildpack: str, api: Version, what: str) -> Process:
    is_text = api < Version(0, 9)
    if not is_text and "direct" in document:
        raise InvalidContent("process.direct is not supported on this buildpack version")
    command = (string(document, "command", what),) if is_text else texts(document, "command", what)
    return Process(
        string(document, "type", what),
        command,
        texts(document, "args", what) if "args" in document else None,
        direct=flag(document, "direct", what) if is_text else True,
        buildpack_id=buildpack,
        working_dir=string(document, "working-dir", what),
        exec_env=texts(document, "exec-env", what),
    )


def _bill(document: Object, what: str) -> tuple[BillEntry, ...]:
    bill = tuple(BillEntry.from_document(each, what) for each in inners(document, "bom", what))
    for entry in bill:
        if entry.version:
            raise InvalidContent(
                f"bom entry '{entry.name}' has a top level version which is not allowed. "
                "The buildpack should instead set metadata.version"
            )
    return bill
