"""What an image is built for, and whether a buildpack says that it can do that.

Source: buildpacks/spec, buildpack.md, "Targets"; Go's lifecycle, platform/target_data.go.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from ...publish.sink import host_platform
from ..console import Console
from ..files.analyzed import Target
from ..golang.json import Struct

OS_RELEASE = Path("/etc/os-release")
MAX_OS_RELEASE = 64 << 10  # bytes


@dataclass(frozen=True, slots=True)
class Distribution:
    """A distribution that a buildpack knows; an empty version fits all."""

    name: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Supported:
    """One of the targets of a buildpack; what is empty fits all."""

    os: str = ""
    arch: str = ""
    arch_variant: str = ""
    distributions: tuple[Distribution, ...] = ()

    def fits(self, target: Target) -> bool:
        """Tell whether a buildpack that has this target can build for that one."""
        return (
            _agree(target.os, self.os)
            and _agree(target.arch, self.arch)
            and _agree(target.arch_variant, self.arch_variant)
            and (not self.distributions or any(_is(target, known) for known in self.distributions))
        )

    def __str__(self) -> str:
        known = " ".join(f"{{{each.name} {each.version}}}" for each in self.distributions)
        return f"{{{self.os} {self.arch} {self.arch_variant} [{known}]}}"

    def document(self) -> Struct:
        """Return what messages show, as Go's JSON has it."""
        variant = {"arch-variant": self.arch_variant} if self.arch_variant else {}
        known = [Struct(name=each.name, version=each.version) for each in self.distributions]
        distributions = {"distros": known} if known else {}
        return Struct({"os": self.os, "arch": self.arch, **variant, **distributions})


def completed(target: Target | None, console: Console, os_release: Path = OS_RELEASE) -> Target:
    """Return what is built for, where the run image does not say it: what this machine is.

    It is told when the distribution is taken from `/etc/os-release`.
    """
    target = target or Target()
    if target.distro_name or target.distro_version:
        return target
    console.info("target distro name/version labels not found, reading /etc/os-release file")
    name, version = _distribution(os_release, console)
    return replace(
        target,
        os=target.os or "linux",
        arch=target.arch or host_platform().architecture,
        distro_name=name,
        distro_version=version,
    )


def target_variables(target: Target) -> dict[str, str]:
    """Return the variables by which a buildpack knows what it builds for."""
    optional = {
        "CNB_TARGET_ARCH_VARIANT": target.arch_variant,
        "CNB_TARGET_DISTRO_NAME": target.distro_name,
        "CNB_TARGET_DISTRO_VERSION": target.distro_version,
    }
    given = {name: value for name, value in optional.items() if value}
    return {"CNB_TARGET_OS": target.os, "CNB_TARGET_ARCH": target.arch, **given}


def _agree(one: str, other: str) -> bool:
    return not one or not other or one == other


def _is(target: Target, known: Distribution) -> bool:
    if not target.distro_name and not target.distro_version:
        return False
    return _agree(target.distro_name, known.name) and _agree(target.distro_version, known.version)


def _distribution(os_release: Path, console: Console) -> tuple[str, str]:
    try:
        with os_release.open("rb") as file:
            lines = file.read(MAX_OS_RELEASE).decode(errors="replace").split("\n")
    except (FileNotFoundError, IsADirectoryError):
        return "", ""
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        console.warn(
            f"Encountered error trying to read /etc/os-release file: open {os_release}: {reason}"
        )
        return "", ""
    values = {"ID": "", "VERSION_ID": ""}
    for line in lines:
        name, _, value = line.partition("=")
        if name in values and not values[name] and "=" not in value:
            values[name] = value.strip('" ')
    return values["ID"], values["VERSION_ID"]
