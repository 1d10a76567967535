"""Foreign words in a line of ours: they must not break it, flood it or act on a terminal."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager

from .digest import Digest
from .errors import NotFound, OcistowError

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
    know its object, a blob that is absent not its image; the first note that was added does.
    """
    notes: list[str] = getattr(error, "__notes__", [])
    if not isinstance(error, OSError):
        is_blob = isinstance(error, NotFound) and isinstance(error.name, Digest)
        return printable(": ".join([*(notes[:1] if is_blob else []), str(error)]))
    names = [str(name) for name in (error.filename, error.filename2) if name not in (None, ".")]
    objects = [*notes[:1], *names] if not names or not os.path.isabs(names[0]) else names
    return printable(": ".join([*objects, error.strerror or str(error) or type(error).__name__]))


@contextmanager
def about(what: str) -> Generator[None]:
    """Note on an error from the block what was done; its own words may name no object."""
    try:
        yield
    except (OSError, NotFound) as error:
        error.add_note(what)
        raise
