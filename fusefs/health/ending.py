"""How a mount's process ends where nothing else helps."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path
from typing import NoReturn, cast

from ...oci.errors import OcistowError
from ..system import libc
from ..system.table import entries

ABORT = "/sys/fs/fuse/connections/{}/abort"  # where fusectl is mounted
TIMEOUT = 10.0  # seconds for fusermount3


def is_foreseen(error: BaseException) -> bool:
    """Tell whether an exception is one that a user can do something about, and no bug."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)  # whatever it is of
        return all(map(is_foreseen, group.exceptions))
    return isinstance(error, OcistowError | OSError)


def abort(where: Path, status: int = os.EX_SOFTWARE) -> NoReturn:
    """End this process and the mount at `where`, a path without links, whatever is under way.

    Clients that wait get an error. Asks the mount for nothing.
    """
    try:
        _detach(where)
    finally:  # whatever is lacking, memory for one
        os._exit(status)  # which closes the device, and so ends the connection


def _detach(where: Path) -> None:
    for entry in entries():
        if entry.path == where:
            minor = entry.device.partition(":")[2]
            with contextlib.suppress(OSError):
                Path(ABORT.format(minor)).write_text("1")
    try:
        libc.umount(where, libc.UMOUNT_NOFOLLOW | libc.MNT_DETACH | libc.MNT_FORCE)
    except OSError:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(  # noqa: S603 - a fixed command and one path after `--`
                ["fusermount3", "-u", "-z", "--", str(where)],  # noqa: S607 - wherever it is
                capture_output=True,
                timeout=TIMEOUT,
                check=False,
            )
