"""Who uses a mount, by what procfs says of processes. Asks the mount itself nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

PATIENCE = 2.0  # seconds to look for users; a machine with 10,000 processes needs one
SHOWN = 5  # users that are named

_PROC = "/proc"


def found(mountpoint: Path, device: str) -> list[str]:
    """Return who keeps a mount busy, a line for each process that this one may look at.

    Only processes that see this very mount can, so those in other mount namespaces are
    passed over. `device` is the file system's major:minor. Looks no longer than `PATIENCE`.
    """
    deadline = time.monotonic() + PATIENCE
    ours, users = _namespace("self"), list[str]()
    for name in os.listdir(_PROC):
        if time.monotonic() > deadline:
            break
        if name.isdigit() and _namespace(name) == ours:
            use = next(_uses(name, os.fspath(mountpoint), device), None)
            if use is not None:
                users.append(f"{name} ({_command(name)}, {use})")
    return users


def listed(users: Sequence[str]) -> str:
    """Return the first `SHOWN` of them in one line."""
    if not users:
        return "by a process that cannot be seen from here"
    more = [f"and {len(users) - SHOWN} more"] if len(users) > SHOWN else []
    return ", ".join([*users[:SHOWN], *more])


def _uses(process: str, mountpoint: str, device: str) -> Iterator[str]:
    """Yield what a process has of a mount: `cwd a/b`."""
    base = f"{_PROC}/{process}"
    for what in ("cwd", "root"):
        if (path := _inside(f"{base}/{what}", mountpoint)) is not None:
            yield f"{what} {path}"
    with suppress(OSError):  # it ended, or is another user's
        for number in os.listdir(f"{base}/fd"):
            if (path := _inside(f"{base}/fd/{number}", mountpoint)) is not None:
                yield f"fd {number} {path}"
    with suppress(OSError), open(f"{base}/maps", "rb") as maps:
        for line in maps:
            fields = line.split(maxsplit=5)
            if len(fields) == 6 and _device(fields[3]) == device:
                path = os.fsdecode(fields[5].rstrip(b"\n"))
                yield f"mapped {_below(path, mountpoint) or path}"


def _inside(link: str, mountpoint: str) -> str | None:
    """Return where on the mount a link of procfs leads; None for elsewhere."""
    try:
        return _below(os.readlink(link), mountpoint)
    except OSError:
        return None


def _below(path: str, mountpoint: str) -> str | None:
    if path == mountpoint:
        return "."
    prefix = mountpoint.rstrip("/") + "/"
    return path.removeprefix(prefix) if path.startswith(prefix) else None


def _device(field: bytes) -> str:
    """Return what maps says in hexadecimal as mountinfo says it."""
    major, _, minor = field.partition(b":")
    return f"{int(major, 16)}:{int(minor, 16)}"


def _namespace(process: str) -> str:
    try:
        return os.readlink(f"{_PROC}/{process}/ns/mnt")
    except OSError:
        return ""  # it ended, or is another user's


def _command(process: str) -> str:
    try:
        return Path(f"{_PROC}/{process}/comm").read_text(errors="replace").strip()
    except OSError:
        return "?"
