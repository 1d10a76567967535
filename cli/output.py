"""What a person or a script reads: sizes, tables, JSON documents, colours."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import PurePosixPath
from textwrap import indent
from typing import TextIO

import click

from ..oci.digest import Digest
from ..oci.reference import Reference
from ..oci.wording import about, printable

SCHEMA_VERSION = 1  # of every --json document; raised when a member changes its meaning
AT_ONCE = 500  # rows of a table that line up

_UNITS = ("kB", "MB", "GB", "TB", "PB", "EB")


def human(size: int) -> str:
    """Return a number of bytes for reading, in decimal units like Docker's.

    >>> human(999), human(1_000), human(72_090_000)
    ('999 B', '1.0 kB', '72.1 MB')
    """
    if size < 1000:
        return f"{size} B"
    value = float(size)
    for unit in _UNITS:
        value /= 1000
        if value < 999.95 or unit == _UNITS[-1]:
            return f"{value:.1f} {unit}"
    raise AssertionError


def exact(size: int) -> str:
    """Return a number of bytes as digits."""
    return str(size)


def sizes(*, exactly: bool) -> Callable[[int], str]:
    """Return how a table prints bytes."""
    return exact if exactly else human


def count(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> count(1, "blob"), count(3, "blob")
    ('1 blob', '3 blobs')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def result(name: str, digest: Digest) -> str:
    """Return what a name is now, with its digest unless the name ends in it."""
    return name if name.endswith(f"@{digest}") else f"{name}: digest {digest}"


def shown(name: PurePosixPath) -> str:
    """Return how a layout is called: by its reference, else by its path below layouts/."""
    return str(Reference.from_path(name) or name)


def line(text: str, *, aside: bool = False, end: str = "\n") -> None:
    """Print one line, or several, on stdout; `aside`, on stderr, since stdout has other data."""
    with about("standard error" if aside else "standard output"):
        click.echo(text + end, err=aside, nl=False)


def raw(content: bytes) -> None:
    """Print bytes on stdout as they are."""
    with about("standard output"):
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int]) -> None:
    """Print rows on stdout so that columns line up; those in `right` end together.

    They are printed while they come, `AT_ONCE` at a time; later ones may make columns wider.
    """
    coming = iter(rows)
    widths = [0] * len(header)
    title: list[Sequence[str]] = [header]
    while found := [*title, *islice(coming, AT_ONCE)]:
        cells = [[printable(cell) for cell in row] for row in found]
        columns = zip(*cells, strict=True)
        widths = [max(w, *map(len, c)) for w, c in zip(widths, columns, strict=True)]
        lines = [_aligned(row, widths, right) for row in cells]
        line("\n".join([heading(lines[0]) if title else lines[0], *lines[1:]]))
        title = []


def _aligned(cells: Sequence[str], widths: Sequence[int], right: Sequence[int]) -> str:
    padded = [
        cell.rjust(width) if place in right else cell.ljust(width)
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()


def heading(text: str) -> str:
    """Return text in bold where stdout is a terminal that wants it."""
    return click.style(text, bold=True) if has_colours(sys.stdout) else text


def has_colours(stream: TextIO) -> bool:
    """Tell whether to send colours. Source: https://no-color.org."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def document(members: Mapping[str, object], *, aside: bool = False) -> None:
    """Print a JSON document on stdout; `aside`, on stderr."""
    line(json.dumps({"schemaVersion": SCHEMA_VERSION, **members}, indent=2), aside=aside)


def listing(
    member: str, items: Iterable[Mapping[str, object]], after: Mapping[str, object] | None = None
) -> None:
    """Print a JSON document with one list on stdout, its items while they come.

    Other members come `after` it.
    """
    empty = json.dumps({"schemaVersion": SCHEMA_VERSION, member: [], **(after or {})}, indent=2)
    start, _, end = empty.partition("[]")
    coming = iter(items)
    separator = f"{start}["
    while found := list(islice(coming, AT_ONCE)):
        texts = [indent(json.dumps(item, indent=2), "    ") for item in found]
        line(f"{separator}\n" + ",\n".join(texts), end="")
        separator = ","
    line(f"{empty}" if separator != "," else f"\n  ]{end}")
