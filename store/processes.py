"""Names of processes that are never used again, and whether one still runs."""

from __future__ import annotations

import os
from pathlib import Path


def this_process() -> str:
    """Return the name of this process: boot, PID namespace, PID and start time."""
    return _name(os.getpid())


def is_alive(name: str) -> bool:
    """Tell whether the process with this name may still run.

    Of a process in another PID namespace, such as another container's, nobody here can tell,
    so it may.
    """
    boot, _, rest = name.partition("/")
    namespace, _, rest = rest.partition("/")
    pid, _, _ = rest.partition("/")
    try:
        if boot == _boot() and namespace.isdecimal() and namespace != _namespace():
            return True
        return _name(int(pid)) == name
    except (OSError, ValueError):
        return False


def _name(pid: int) -> str:
    # The name of the program stands in parentheses and may hold any character.
    state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    if state == "Z":
        raise ProcessLookupError(f"process {pid} has ended")
    return f"{_boot()}/{_namespace()}/{pid}/{fields[18]}"


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _namespace() -> str:
    return str(os.stat("/proc/self/ns/pid").st_ino)
