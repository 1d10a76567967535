"""Foreign words in a line of ours: they must not break it, flood it or act on a terminal."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager

from .errors import OcistowError

MAX_WORDS = 300  # characters of a peer's message
MAX_VALUE = 200  # characters of a single value


def printable(text: str) -> str:
    """Return text with every character escaped that would not just be seen."""
    if text.isprintable():  # nearly always: of 100,000 names, 5 s less
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def plain(text: str) -> str:
    """Return a peer's words as one line of at most `MAX_WORDS` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= MAX_WORDS else f"{line[:MAX_WORDS]}…"


def quoted(value: object) -> str:
    """Return a value that a document has where another was expected."""
    if isinstance(value, str):
        return repr(value[:MAX_VALUE])
    if value is None or isinstance(value, int | float):
        return repr(value)[:MAX_VALUE]
    return type(value).__name__


def message_of(error: OcistowError | OSError) -> str:
    """Return one line that says what was refused, with the object it is about.

    An OSError of an open file or of a name within an open directory does not
    know its object; the first note that was added to it does.
    """
    if not isinstance(error, OSError):
        return printable(str(error))
    names = [str(name) for name in (error.filename, error.filename2) if name not in (None, ".")]
    notes: list[str] = getattr(error, "__notes__", [])
    objects = [*notes[:1], *names] if not names or not os.path.isabs(names[0]) else names
    return printable(": ".join([*objects, error.strerror or str(error) or type(error).__name__]))


@contextmanager
def about(what: str) -> Generator[None]:
    """Note on an OSError from the block what was done; its own words may name no object."""
    try:
        yield
    except OSError as error:
        error.add_note(what)
        raise
