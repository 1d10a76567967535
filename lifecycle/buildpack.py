"""Buildpacks and extensions as they lie in a builder: what buildpack.toml says of one.

Source: buildpacks/spec, buildpack.md, "buildpack.toml (TOML)"; Go's lifecycle,
buildpack/bp_descriptor.go and cmd/apis.go.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..oci.errors import InvalidContent, PhaseFailed
from .build_target import Distribution, Supported
from .files.group import GroupElement
from .files.table import Table
from .layer_dirs import escaped
from .order import Alternatives
from .platform_api import BUILDPACK_APIS, Code, Version

_BIONIC = "io.buildpacks.stacks.bionic"
_UBUNTU = Supported("linux", "amd64", distributions=(Distribution("ubuntu", "18.04"),))


@dataclass(frozen=True, slots=True)
class Buildpack:
    """A buildpack, or an extension.

    Attributes:
        directory: where its programs are.
        api: of which version it is; checked to be one that is known.
        exec_envs: the execution environments it is for; none means all.
        sboms: the media types it declared.
        order: that of a composite; empty for one with programs.
        targets: what it can build for; none means everything.
    """

    element: GroupElement
    directory: Path
    api: Version
    homepage: str = ""
    clear_env: bool = False
    exec_envs: tuple[str, ...] = ()
    sboms: tuple[str, ...] = ()
    order: tuple[tuple[GroupElement, ...], ...] = ()
    targets: tuple[Supported, ...] = ()

    def alternatives(self, *, optional: bool) -> Alternatives:
        """Return the order of a composite."""
        return Alternatives(self.order, optional)


class Builder:
    """The directories in which a builder has its buildpacks and extensions."""

    def __init__(self, buildpacks: Path, extensions: Path) -> None:
        self._buildpacks = buildpacks
        self._extensions = extensions

    def find(self, element: GroupElement) -> Buildpack:
        """Return what `<id>/<version>` has.

        Raises:
            PhaseFailed: it has another API; `BUILDPACK_API`.
            InvalidContent, OSError: there is nothing, or something malformed.
        """
        kind = "extension" if element.extension else "buildpack"
        parent = self._extensions if element.extension else self._buildpacks
        names = (escaped(element.id), element.version)
        if any(name in (".", "..") or "/" in name or "\0" in name for name in names):
            raise InvalidContent(f"'{element}' names no directory of one {kind}")
        directory = parent.joinpath(*names)
        path = directory / f"{kind}.toml"
        return _described(element, kind, Table.read_required(path), directory.absolute())


def supported_api(element: GroupElement, text: str) -> Version:
    """Return the version of the Buildpack API that something is of.

    Raises:
        PhaseFailed: it is not one that is known; `BUILDPACK_API`.
    """
    kind = "Extension" if element.extension else "Buildpack"
    try:
        version = Version.parse(text)
    except InvalidContent as error:
        raise PhaseFailed(
            Code.BUILDPACK_API,
            f"failed to parse buildpack API '{text}' for {kind.lower()} '{element}'",
        ) from error
    if version not in BUILDPACK_APIS:
        raise PhaseFailed(
            Code.BUILDPACK_API,
            f"failed to set API for {kind} '{element}': "
            f"buildpack API version '{text}' is incompatible with the lifecycle",
        )
    return version


def _described(element: GroupElement, kind: str, document: Table, directory: Path) -> Buildpack:
    table = document.table(kind)
    api = supported_api(element, document.string("api"))
    return Buildpack(
        element,
        directory,
        api,
        homepage=table.string("homepage"),
        clear_env=table.flag("clear-env"),
        exec_envs=table.strings("exec-env"),
        sboms=table.strings("sbom-formats"),
        order=tuple(
            tuple(map(_element, group.tables("group"))) for group in document.tables("order")
        ),
        targets=tuple(map(_target, document.tables("targets")))
        or _inferred(kind, api, document, directory / "bin"),
    )


def _element(table: Table) -> GroupElement:
    return GroupElement(
        table.string("id"), table.string("version"), optional=table.flag("optional")
    )


def _target(table: Table) -> Supported:
    distributions = (
        Distribution(each.string("name"), each.string("version"))
        for each in table.tables("distros")
    )
    names = (table.string("os"), table.string("arch"), table.string("arch-variant"))
    return Supported(*names, tuple(distributions))


def _inferred(kind: str, api: Version, document: Table, programs: Path) -> tuple[Supported, ...]:
    if kind == "extension":
        has_programs = any((programs / name).exists() for name in ("detect", "generate"))
        return (Supported("linux"),) if has_programs else (Supported(),)
    stacks = [stack.string("id") for stack in document.tables("stacks")]
    bionic = _UBUNTU if api >= Version(0, 10) or len(stacks) == 1 else None
    known = {_BIONIC: bionic, "*": Supported()}
    found = tuple(target for stack in stacks if (target := known.get(stack)) is not None)
    return found or ((Supported("linux"),) if (programs / "build").exists() else ())
