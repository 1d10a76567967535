"""Software bills of materials: those of the lifecycle itself, and the layers of them.

Source: buildpacks/spec, platform.md, "SBOM"; `<layers>/sbom/{launch,build,cache}`.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

from ...store.disk import open_directory, replacing
from .directories import escaped

FORMATS = ("sbom.cdx.json", "sbom.spdx.json", "sbom.syft.json")
DEFAULT_DIR = Path("/cnb/lifecycle")
LIFECYCLE = "buildpacksio/lifecycle"

_CHUNK = 1 << 20  # bytes


def sbom_dir(layers_dir: Path, kind: str) -> Path | None:
    """Return the directory of all SBOMs for `launch`, `build` or `cache`; None if absent.

    Raises:
        OSError: it cannot be read, or is no directory.
    """
    path = layers_dir / "sbom" / kind
    try:
        os.scandir(path).close()
    except FileNotFoundError:
        return None
    return path


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
    _copy_of(shipped, "lifecycle", layers_dir / "sbom" / "build" / own, warn)
    launcher = layers_dir / "sbom" / "launch" / own / "launcher"
    if launcher_sbom_dir == shipped:
        _copy_of(shipped, "launcher", launcher, warn)
    else:
        _copy_all(launcher_sbom_dir, launcher, warn)


def _copy_of(source: Path, component: str, target: Path, warn: Callable[[str], None]) -> None:
    for form in FORMATS:
        name = f"{component}.{form}"
        if (source / name).exists():
            copy_sbom(source / name, target / form)
        else:
            warn(f"Did not find SBOM {name} in {source}")


def _copy_all(source: Path, target: Path, warn: Callable[[str], None]) -> None:
    try:
        with os.scandir(source) as entries:
            names = sorted(e.name for e in entries if not e.is_dir(follow_symlinks=False))
    except OSError:
        warn(f"Failed to list contents of directory {source}")
        raise
    _make(target)
    for name in names:
        if name.endswith(FORMATS):
            copy_sbom(source / name, target / name)


def copy_sbom(source: Path, target: Path) -> None:
    """Copy a regular file; anything else is left out, as Go's lifecycle does."""
    opened = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO must not wait
    with open(opened, "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            return
        _make(target.parent)
        directory = open_directory(target.parent)
        try:
            with replacing(directory, target.name) as file, open(file, "wb", closefd=False) as new:
                os.fchmod(file, 0o644)
                shutil.copyfileobj(stream, new, _CHUNK)
        finally:
            os.close(directory)


def _make(directory: Path) -> None:
    """Make a directory whose mode, which the layer will have, is not the umask's choice."""
    for path in (*reversed(directory.parents), directory):
        try:
            path.mkdir()
        except FileExistsError:
            continue
        path.chmod(0o755)
