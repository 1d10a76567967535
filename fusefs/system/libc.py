"""System calls about mounts and processes that Python lacks."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REC_PRIVATE = 0x4000 | 1 << 18
MNT_FORCE = 1
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Give this process, which has a single thread, namespaces of its own.

    Raises:
        OSError: the system does not let us.
    """
    _checked(_libc.unshare(flags))


def mount(source: str | None, target: Path, kind: str | None, flags: int, options: str) -> None:
    """Attach a file system, or change how one is mounted.

    Raises:
        OSError: the kernel refuses.
    """
    words = [None if word is None else word.encode() for word in (source, kind, options)]
    _checked(
        _libc.mount(words[0], os.fsencode(target), words[1], ctypes.c_ulong(flags), words[2]),
        target,
    )


def umount(target: Path, flags: int) -> None:
    """Detach what is mounted last at a path.

    Raises:
        OSError: EBUSY and others.
    """
    _checked(_libc.umount2(os.fsencode(target), flags), target)


def end_with_parent(number: int) -> None:
    """Send this process a signal when the thread that forked it ends. Source: prctl(2)."""
    _checked(_libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(number), 0, 0, 0))


def _checked(result: int, path: Path | None = None) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), *([str(path)] if path else []))
