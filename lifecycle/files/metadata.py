"""`<layers>/config/metadata.toml`: what the builder learnt, and the launcher will read.

Source: buildpacks/spec, platform.md, "metadata.toml".
"""

from __future__ import annotations

from dataclasses import dataclass

from .group import GroupElement


@dataclass(frozen=True, slots=True)
class Label:
    """A label that a buildpack wants on the image."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Process:
    """A process that the image can start. The command has arguments from API 0.10 on."""

    type: str
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    direct: bool = False
    buildpack_id: str = ""
    working_dir: str = ""
    exec_env: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BuildMetadata:
    """The whole file.

    Attributes:
        slices: path patterns relative to the app directory, for one layer each.
        processes: sorted by type.
    """

    default_process: str = ""
    buildpacks: tuple[GroupElement, ...] = ()
    extensions: tuple[GroupElement, ...] = ()
    labels: tuple[Label, ...] = ()
    processes: tuple[Process, ...] = ()
    slices: tuple[tuple[str, ...], ...] = ()
