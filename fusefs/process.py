"""How a mount lives beside other processes: in the background, or seen by one command alone."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

_CLONE_NEWNS = 0x00020000
_MS_REC_PRIVATE = 0x4000 | 1 << 18


def detach(log_file: Path) -> Callable[[], None] | None:
    """Continue in a child process, which outlives this one.

    Returns None in the parent, and once the child called what it got, or ended: then
    the parent exits with its status. The child's standard streams are this process' until it
    makes that call, and `log_file` afterwards.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        with open(reader, "rb") as pipe:
            is_ready = bool(pipe.read(1))
        if not is_ready:
            _, status = os.waitpid(child, 0)
            os._exit(os.waitstatus_to_exitcode(status) or os.EX_SOFTWARE)
        return None
    os.close(reader)
    os.setsid()

    def ready() -> None:
        log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(nothing, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.write(writer, b"!")
        os.close(writer)

    return ready


def unshare_mounts() -> bool:
    """Give this process mounts of its own, which its children see and nobody else does.

    False where the system does not let us.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        return False
    return bool(libc.mount(None, b"/", None, _MS_REC_PRIVATE, None) == 0)
