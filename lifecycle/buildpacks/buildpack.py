"""Buildpacks and extensions as they lie in a builder: what buildpack.toml says of one.

Source: buildpacks/spec, buildpack.md, "buildpack.toml (TOML)"; Go's lifecycle,
buildpack/bp_descriptor.go and cmd/apis.go.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...oci.document import Object, flag, inner, inners, string, texts
from ...oci.errors import InvalidContent
from ..files.document import read_toml
from ..files.group import GroupElement, elements, supported_api
from ..layers.directories import escaped
from ..platform_api import Version
from .order import Alternatives
from .target import Distribution, Supported

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
        path = parent.joinpath(*names, f"{kind}.toml")
        document = read_toml(path)
        if document is None:
            raise InvalidContent(f"open {path}: no such file or directory")
        return _described(element, kind, document, path)


def _described(element: GroupElement, kind: str, document: Object, path: Path) -> Buildpack:
    what = str(path)
    table = inner(document, kind, what)
    api = supported_api(element, string(document, "api", what))
    directory = path.parent.absolute()
    return Buildpack(
        element,
        directory,
        api,
        homepage=string(table, "homepage", what),
        clear_env=flag(table, "clear-env", what),
        exec_envs=texts(table, "exec-env", what),
        sboms=texts(table, "sbom-formats", what),
        order=tuple(elements(each, "group", what) for each in inners(document, "order", what)),
        targets=tuple(_target(each, what) for each in inners(document, "targets", what))
        or _inferred(kind, api, document, directory / "bin"),
    )


def _target(document: Object, what: str) -> Supported:
    distributions = (
        Distribution(string(each, "name", what), string(each, "version", what))
        for each in inners(document, "distros", what)
    )
    return Supported(
        string(document, "os", what),
        string(document, "arch", what),
        string(document, "arch-variant", what),
        tuple(distributions),
    )


def _inferred(kind: str, api: Version, document: Object, programs: Path) -> tuple[Supported, ...]:
    if kind == "extension":
        has_programs = any((programs / name).exists() for name in ("detect", "generate"))
        return (Supported("linux"),) if has_programs else (Supported(),)
    what = str(programs.parent)
    stacks = [string(each, "id", what) for each in inners(document, "stacks", what)]
    bionic = _UBUNTU if api >= Version(0, 10) or len(stacks) == 1 else None
    known = {_BIONIC: bionic, "*": Supported()}
    found = tuple(target for stack in stacks if (target := known.get(stack)) is not None)
    return found or ((Supported("linux"),) if (programs / "build").exists() else ())
