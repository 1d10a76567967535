"""Which ways can be gone on this machine, and why others cannot."""

from __future__ import annotations

import os
from collections.abc import Sequence

from .daemon import Daemon
from .servers import Missing, require
from .ways import OURS, UNCOMPRESSED, WAYS

_NEEDS = {
    "layout": ("skopeo",),
    UNCOMPRESSED: ("skopeo",),
    "registry": ("docker", "docker-registry"),
}
_FAR = "the daemon is on another machine, and this one's registry is on loopback"


def chosen(daemon: Daemon, only: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the ways to go, and what is left out with its reason; ours always takes part.

    Raises:
        Missing: one that was asked for cannot be gone.
    """
    left: dict[str, str] = {}
    for way in WAYS:
        if way != OURS and only and way not in only:
            left[way] = "not asked for"
        elif way == "registry" and not daemon.is_near:
            left[way] = _FAR
        else:
            try:
                require(*_NEEDS.get(way, ()))
            except Missing as missing:
                left[way] = str(missing)
    for way in only:
        if way in left:
            raise Missing(f"{way}: {left[way]}")
    return [way for way in WAYS if way not in left], left


def cannot_mount() -> str:
    """Return why nothing can be mounted here; nothing if it can."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse cannot be opened"
    try:
        require("fusermount3")
    except Missing as missing:
        return str(missing)
    return ""


def cannot_push(daemon: Daemon) -> str:
    """Return why no registry can be the target here; nothing if one can."""
    if not daemon.is_near:
        return _FAR
    try:
        require("docker", "docker-registry", "skopeo")
    except Missing as missing:
        return str(missing)
    return ""
