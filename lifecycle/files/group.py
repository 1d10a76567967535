"""group.toml, order.toml and system.toml: which buildpacks, in which order.

Source: buildpacks/spec, platform.md, "group.toml", "order.toml", "system.toml".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from ...oci.document import Object, flag, inner, inners, string
from ...oci.errors import InvalidContent, PhaseFailed
from ..console import Console
from ..golang.json import Struct
from ..platform_api import BUILDPACK_APIS, Code, Version
from .document import read_file, read_required, write_toml


@dataclass(frozen=True, slots=True)
class GroupElement:
    """A buildpack of a group, or an extension of one."""

    id: str
    version: str = ""
    api: str = ""
    homepage: str = ""
    optional: bool = False
    extension: bool = False

    @classmethod
    def from_document(cls, document: Object, what: str) -> Self:
        """Read an element of any file that has such."""
        return cls(
            string(document, "id", what),
            string(document, "version", what),
            string(document, "api", what),
            string(document, "homepage", what),
            optional=flag(document, "optional", what),
            extension=flag(document, "extension", what),
        )

    def to_document(self) -> Struct:
        """Return what `from_document` reads."""
        return Struct(
            id=self.id,
            version=self.version,
            api=self.api,
            homepage=self.homepage,
            extension=self.extension,
            optional=self.optional,
        ).without_empty("api", "homepage", "extension", "optional")

    def to_json(self) -> Struct:
        """Return what labels tell of an element: less than files do."""
        document = Struct(
            id=self.id, version=self.version, homepage=self.homepage, optional=self.optional
        )
        return document.without_empty("homepage", "optional")

    def __str__(self) -> str:
        return f"{self.id}@{self.version}"


@dataclass(frozen=True, slots=True)
class Group:
    """What was detected, or one alternative of an order."""

    buildpacks: tuple[GroupElement, ...] = ()
    extensions: tuple[GroupElement, ...] = ()

    @classmethod
    def from_document(cls, document: Object, what: str) -> Self:
        """Read group.toml, or a group of an order."""
        extensions = elements(document, "group-extensions", what)
        return cls(elements(document, "group", what), tuple(map(_as_extension, extensions)))

    def to_document(self) -> Struct:
        """Return what `from_document` reads; that extensions are so and optional goes unsaid."""
        extensions = [replace(each, extension=False, optional=False) for each in self.extensions]
        return Struct(
            {
                "group": [each.to_document() for each in self.buildpacks] or None,
                "group-extensions": [each.to_document() for each in extensions] or None,
            }
        )


@dataclass(frozen=True, slots=True)
class Order:
    """Alternatives to be tried one after the other."""

    groups: tuple[Group, ...] = ()
    extensions: tuple[Group, ...] = ()

    @classmethod
    def from_document(cls, document: Object, what: str) -> Self:
        """Read order.toml, or the order of a composite buildpack."""
        groups = inners(document, "order", what)
        extensions = inners(document, "order-extensions", what)
        return cls(
            tuple(Group.from_document(group, what) for group in groups),
            tuple(
                Group(tuple(map(_as_extension, elements(group, "group", what))))
                for group in extensions
            ),
        )


@dataclass(frozen=True, slots=True)
class System:
    """Buildpacks that come before and after those of every group; API 0.15."""

    before: tuple[GroupElement, ...] = ()
    after: tuple[GroupElement, ...] = ()

    @classmethod
    def from_document(cls, document: Object, what: str) -> Self:
        """Read system.toml."""
        system = inner(document, "system", what)
        before, after = (inner(system, name, f"system of {what}") for name in ("pre", "post"))
        return cls(elements(before, "buildpacks", what), elements(after, "buildpacks", what))


def elements(document: Object, key: str, what: str) -> tuple[GroupElement, ...]:
    """Read an array of buildpacks; absent is empty."""
    where = f"{key} of {what}"
    return tuple(GroupElement.from_document(each, where) for each in inners(document, key, what))


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


def read_group(path: Path) -> Group:
    """Read group.toml.

    Raises:
        InvalidContent: it is absent, or cannot be read or understood.
    """
    return read_required(path, "group", Group.from_document)


def write_group(path: Path, group: Group) -> None:
    """Write group.toml.

    Raises:
        OSError: it cannot be written.
    """
    write_toml(path, group.to_document())


def read_order(path: Path) -> Order:
    """Read order.toml.

    Raises:
        InvalidContent: it is absent, or cannot be read or understood.
    """
    return read_required(path, "order", Order.from_document)


def read_system(path: Path, console: Console) -> System:
    """Read system.toml; without it nothing comes before or after.

    Raises:
        InvalidContent: it cannot be read or understood.
    """
    system = read_file(path, "system", System.from_document)
    if system is None:
        console.debug(f'No system buildpacks found at path "{path}"')
        return System()
    return system


def _as_extension(element: GroupElement) -> GroupElement:
    return replace(element, extension=True, optional=True)
