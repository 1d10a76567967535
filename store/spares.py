"""Names of files that are about to replace others."""

from __future__ import annotations

import os

_SPARE = ".ocistow-"  # begins every name that lasts until a rename


def spare_name() -> str:
    """Return a name for a file that is about to replace another.

    Nobody has it: neither a thread of this process, nor one of another container that shares
    the store, nor one that died.
    """
    return f"{_SPARE}{os.urandom(8).hex()}"


def is_spare(name: str) -> bool:
    """Tell whether a name is such a one: of a process that is about to rename it, or that died."""
    return name.startswith(_SPARE)
