"""Which engine a mount gets."""

from __future__ import annotations

from .engine import Engine

AUTO = "auto"
NAMES = ("pyfuse3",)


def engine(name: str) -> Engine:
    """Return a new engine: one of `NAMES`, or for `AUTO` the best that works here."""
    assert name in (AUTO, *NAMES), name
    from .pyfuse3 import Pyfuse3  # heavy

    return Pyfuse3()
