"""Where something was measured, and with what."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path
from types import MappingProxyType

from ..oci.version import version
from .processes import SOURCE, output

OURS = "ocistow"  # among the versions
_PACKAGES = ("blake3", "click", "isal", "pyfuse3", "requests", "trio")
_PROGRAMS = {
    "cp": ("cp", "--version"),
    "docker-registry": ("docker-registry", "--version"),
    "dockerd": ("dockerd", "--version"),
    "fusermount3": ("fusermount3", "--version"),
    "skopeo": ("skopeo", "--version"),
}


@dataclass(frozen=True, slots=True)
class Machine:
    """What the numbers depend on, as text."""

    processor: str
    cores: int
    memory: int
    kernel: str
    file_system: str
    commit: str
    versions: dict[str, str]


def this_machine(directory: Path, versions: Mapping[str, str] = MappingProxyType({})) -> Machine:
    """Describe the machine; `directory` is where the benchmark works.

    `versions` are those of what is not found by its name.
    """
    return Machine(
        processor=_first(Path("/proc/cpuinfo"), r"model name\s*: (.*)"),
        cores=os.cpu_count() or 1,
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        kernel=platform.release(),
        file_system=_file_system(directory),
        commit=_commit(),
        versions={**_versions(), **versions},
    )


def _first(file: Path, pattern: str) -> str:
    found = re.search(pattern, file.read_text())
    return found[1] if found else "unknown"


def _file_system(directory: Path) -> str:
    """Return type and mount options, and whether an ext4 has a journal: fsync depends on it."""
    device, options = "", "unknown"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        source, point, kind, given, *_ = line.split(" ")
        if directory.resolve().is_relative_to(point):
            device, options = source, f"{kind} ({given})"
    if options.startswith("ext4"):
        features = output("dumpe2fs", "-h", device)
        if features and "has_journal" not in features:
            options += ", no journal"
    return options


def _commit() -> str:
    """Return the commit of a checkout; nothing for what is installed, be it in one of others."""
    if not output("git", "-C", SOURCE, "ls-files", "ocistow"):
        return ""
    commit = output("git", "-C", SOURCE, "rev-parse", "HEAD")
    changed = output("git", "-C", SOURCE, "status", "--porcelain", "--untracked-files=no")
    return f"{commit} and uncommitted changes" if changed else commit


def _versions() -> dict[str, str]:
    versions = {OURS: version(), "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version_of(package)
        except PackageNotFoundError:
            continue
    for name, command in _PROGRAMS.items():
        if number := re.search(r"\d+\.\d+[\w.+-]*", output(*command)):
            versions[name] = number[0]
    return versions
