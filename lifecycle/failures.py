"""How errors of the library become the end of a phase."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from ..oci.errors import InvalidContent, OcistowError, PhaseFailed
from ..oci.wording import message_of
from .platform_api import Code


@contextmanager
def failing(code: Code, doing: str = "") -> Generator[None]:
    """End the phase with whatever the block raises, which is no end of a phase yet.

    `doing` is what a person reads after `failed to`; without, the error's own words are all.
    """
    try:
        yield
    except PhaseFailed:
        raise
    except (OcistowError, OSError) as error:
        words = message_of(error)
        raise PhaseFailed(code, f"failed to {doing}: {words}" if doing else words) from error


@contextmanager
def naming(what: str) -> Generator[None]:
    """Let what the block refuses say what it was for."""
    try:
        yield
    except InvalidContent as error:
        raise InvalidContent(f"{what}: {error}") from error
