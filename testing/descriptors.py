"""What a process has open."""

from __future__ import annotations

import contextlib
import os


def open_files(pid: int | str = "self") -> frozenset[tuple[str, str]]:
    """Return the number of each open file, and what it is.

    Compare with `<=` what is open now with what was open before: something older may be
    closed at any time, by another thread or the garbage collector.
    """
    found = set[tuple[str, str]]()
    directory = f"/proc/{pid}/fd"
    for number in os.listdir(directory):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile, as that of listdir is
            found.add((number, os.readlink(f"{directory}/{number}")))
    return frozenset(found)
