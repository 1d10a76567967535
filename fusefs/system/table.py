"""The kernel's table of mounts: which stores are shown where, and how they leave it."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...oci.errors import Busy, NotFound
from . import libc, users

KIND = "fuse.ocistow"
UNMOUNT_TIMEOUT = 30  # seconds for fusermount3

_ESCAPED = re.compile(rb"\\([0-7]{3})")  # as the kernel writes odd characters in its tables


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of /proc/self/mountinfo. Source: proc_pid_mountinfo(5)."""

    number: int
    above: int  # the number of the mount that it is mounted on
    device: str  # major:minor, one for each file system however often it is mounted
    path: Path
    kind: str
    source: str


def entries() -> list[Entry]:
    """Return what this process sees mounted, oldest first."""
    return [_entry(line) for line in Path("/proc/self/mountinfo").read_bytes().splitlines()]


def find(mountpoint: Path) -> Entry | None:
    """Return the store that is mounted at a path, alive or dead, whatever is mounted over it."""
    table = entries()
    where = _place(mountpoint, table)
    found = [entry for entry in table if entry.path == where and entry.kind == KIND]
    return found[-1] if found else None


def is_mounted(mountpoint: Path) -> bool:
    """Tell whether a store is mounted there, alive or dead."""
    return find(mountpoint) is not None


def unmount(mountpoint: Path, *, lazy: bool = False) -> Sequence[Path]:
    """Unmount a store; `lazy` detaches it even while it is in use.

    Returns where parts of it are still to be seen: it was bound to other places, or mounted
    into them, and is served until they are unmounted, too.

    Raises:
        NotFound: no store is mounted there.
        Busy: somebody uses it; the message says who, as far as this user may know.
        OSError: it is not ours to unmount.
    """
    table = entries()
    where = _place(mountpoint, table)
    here = [entry for entry in table if entry.path == where]
    if not any(entry.kind == KIND for entry in here):
        raise NotFound(f"a mounted store at {mountpoint}")
    entry = here[-1]
    if entry.kind != KIND:
        raise Busy(f"{mountpoint}: {entry.source} ({entry.kind}) is mounted over it")
    try:
        _unmount(where, lazy=lazy)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        below = [f"{e.path} is mounted in it" for e in table if e.above == entry.number]
        found = [*below, *users.found(entry.path, entry.device)]
        raise Busy(f"{mountpoint}: in use: {users.listed(found)}") from error
    return [other.path for other in entries() if other.device == entry.device]


def _place(mountpoint: Path, table: Sequence[Entry]) -> Path:
    """Return a mount point as the table has it, without a question to what is mounted there."""
    place = mountpoint.parent.resolve() / mountpoint.name
    return place if any(entry.path == place for entry in table) else mountpoint.resolve()


def _unmount(path: Path, *, lazy: bool) -> None:
    try:
        libc.umount(path, libc.UMOUNT_NOFOLLOW | (libc.MNT_DETACH if lazy else 0))
    except PermissionError:  # of this namespace, only root may
        command = ["fusermount3", "-u", *(["-z"] if lazy else []), "--", str(path)]
        try:
            done = subprocess.run(  # noqa: S603 - a fixed command and one path after `--`
                command, capture_output=True, text=True, timeout=UNMOUNT_TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired:
            words = f"fusermount3 took longer than {UNMOUNT_TIMEOUT} s"
            raise OSError(errno.ETIMEDOUT, words, str(path)) from None
        if done.returncode != 0:
            words = done.stderr.strip().removeprefix("fusermount3: ")
            number = errno.EBUSY if "busy" in words.lower() else errno.EPERM
            raise OSError(number, words or "fusermount3 failed", str(path)) from None


def _entry(line: bytes) -> Entry:
    place, _, kind = line.partition(b" - ")
    number, above, device, _, path, *_ = place.split(b" ")
    name, source, *_ = kind.split(b" ")
    return Entry(
        int(number),
        int(above),
        device.decode(),
        Path(_plain(path)),
        _plain(name),
        _plain(source),
    )


def _plain(text: bytes) -> str:
    return os.fsdecode(_ESCAPED.sub(lambda octal: bytes([int(octal[1], 8)]), text))
