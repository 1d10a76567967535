"""Software bills of materials: those of the lifecycle itself, and the layers of them.

Source: buildpacks/spec, platform.md, "SBOM"; `<layers>/sbom/{launch,build,cache}`.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

from ...store.output import replacing
from ...store.reading import READ_SIZE
from .directories import escaped, opened_below

SBOM = "sbom"  # the directory of all of them
FORMATS = ("sbom.cdx.json", "sbom.spdx.json", "sbom.syft.json")
DEFAULT_DIR = Path("/cnb/lifecycle")
LIFECYCLE = "buildpacksio/lifecycle"


def sbom_dir(layers_dir: Path, kind: str) -> Path | None:
    """Return the directory of all SBOMs for `launch`, `build` or `cache`; None if absent.

    Raises:
        OSError: it cannot be read, or is no directory but, say, a link to one.
    """
    try:
        with opened_below(layers_dir, SBOM, kind):
            return layers_dir / SBOM / kind
    except FileNotFoundError:
        return None


def copy_lifecycle_sboms(
    layers_dir: Path,
    launcher_sbom_dir: Path,
    warn: Callable[[str], None],
    *,
    shipped: Path = DEFAULT_DIR,
) -> None:
    """Put the SBOMs of the lifecycle and of the launcher beside those of the buildpacks.

    Of a launcher that has its SBOMs in a directory other than `shipped`, all of them are
    taken, by their own names.

    Raises:
        OSError: something cannot be read or written.
    """
    own = escaped(LIFECYCLE)
    _copy_of(shipped, "lifecycle", layers_dir, Path("build", own), warn)
    launcher = Path("launch", own, "launcher")
    if launcher_sbom_dir == shipped:
        _copy_of(shipped, "launcher", layers_dir, launcher, warn)
    else:
        _copy_all(launcher_sbom_dir, layers_dir, launcher, warn)


def copy_sbom(source: Path, layers_dir: Path, target: Path) -> None:
    """Copy a regular file to `<layers>/sbom/<target>`, which no link leads elsewhere.

    Anything but a regular file is left out, as Go's lifecycle does.

    Raises:
        OSError: it cannot be read or written.
    """
    opened = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO must not wait
    with open(opened, "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            return
        with (
            opened_below(layers_dir, SBOM, *target.parent.parts, make=True) as directory,
            replacing(directory, target.name, mode=0o644) as file,
            open(file, "wb", closefd=False) as new,
        ):
            shutil.copyfileobj(stream, new, READ_SIZE)


def _copy_of(
    source: Path, component: str, layers_dir: Path, target: Path, warn: Callable[[str], None]
) -> None:
    for form in FORMATS:
        name = f"{component}.{form}"
        if (source / name).exists():
            copy_sbom(source / name, layers_dir, target / form)
        else:
            warn(f"Did not find SBOM {name} in {source}")


def _copy_all(source: Path, layers_dir: Path, target: Path, warn: Callable[[str], None]) -> None:
    try:
        with os.scandir(source) as entries:
            names = sorted(e.name for e in entries if not e.is_dir(follow_symlinks=False))
    except OSError:
        warn(f"Failed to list contents of directory {source}")
        raise
    with opened_below(layers_dir, SBOM, *target.parts, make=True):
        pass
    for name in names:
        if name.endswith(FORMATS):
            copy_sbom(source / name, layers_dir, target / name)
