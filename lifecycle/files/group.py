"""group.toml, order.toml and system.toml: which buildpacks, in which order.

Source: buildpacks/spec, platform.md, "group.toml", "order.toml", "system.toml".
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GroupElement:
    """A buildpack of a group, or an extension of one."""

    id: str
    version: str = ""
    api: str = ""
    homepage: str = ""
    optional: bool = False
    extension: bool = False

    def __str__(self) -> str:
        return f"{self.id}@{self.version}"


@dataclass(frozen=True, slots=True)
class Group:
    """What was detected, or one alternative of an order."""

    buildpacks: tuple[GroupElement, ...] = ()
    extensions: tuple[GroupElement, ...] = ()


@dataclass(frozen=True, slots=True)
class Order:
    """Alternatives to be tried one after the other."""

    groups: tuple[Group, ...] = ()
    extensions: tuple[Group, ...] = ()


@dataclass(frozen=True, slots=True)
class System:
    """Buildpacks that come before and after those of every group; API 0.15."""

    before: tuple[GroupElement, ...] = ()
    after: tuple[GroupElement, ...] = ()
