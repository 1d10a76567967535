"""Python's collector of cyclic garbage, in a process that soon ends."""

from __future__ import annotations

import atexit
import gc

_THRESHOLD = 20_000  # objects more than before; Python's own 700 come with every third import


def collect_rarely() -> None:
    """Look for garbage seldom from now on, and not at the end, when all goes anyway.

    That is a fifth of the processor time of a command that takes 0.13 s: a tenth while modules are
    imported, and a tenth when the interpreter ends.
    """
    gc.set_threshold(_THRESHOLD)
    atexit.register(gc.freeze)
