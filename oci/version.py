"""Which version of ocistow this is; imported when somebody asks, since the answer is slow."""

from __future__ import annotations

from importlib import metadata


def version() -> str:
    """Return the version of the installed package."""
    try:
        return metadata.version("ocistow")
    except metadata.PackageNotFoundError:
        return "(not installed)"
