"""Tables of a page: of images, of layers, of a daemon; what sorts and filters them is a script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from ..oci.digest import Digest
from ..oci.reference import Reference
from ..oci.wording import printable
from .chart import Sizes
from .daemon import Comparison
from .layers import LayerCost
from .usage import Cost, Usage

MAX_IMAGES = 10_000  # rows of the table; all others are one
MAX_LAYERS = 5_000
MAX_TEXT = 300  # characters of a command that made a layer

_STATIC = 25  # rows that need no script

Kind = Literal["text", "made", "number", "bytes"]
Cell = str | int


@dataclass(frozen=True, slots=True)
class Table:
    """A table that a script lets sort and filter.

    Attributes:
        by: the column it is sorted by, the largest first; rows come so.
        foot: rows that stay below.
    """

    name: str
    title: str
    note: str
    noun: str
    columns: Sequence[tuple[str, Kind]]
    rows: Sequence[Sequence[Cell]]
    by: int
    foot: Sequence[Sequence[Cell]] = ()


def images_table(usage: Usage) -> Table:
    """Return the table of images."""
    costs = sorted(usage.layouts, key=lambda cost: (-cost.amortised, str(cost.name)))
    rest = costs[MAX_IMAGES:]
    foot: list[Sequence[Cell]] = []
    if rest:
        sums = (sum(column) for column in zip(*map(_numbers, rest), strict=True))
        foot.append((f"and {len(rest):,} smaller", *sums))
    foot.append(("total, what is shared once", *_numbers(usage.total.below(costs))))
    columns = ("Apparent", "On disk", "Shared", "Exclusive", "Amortised", "Reclaimable")
    return Table(
        "images",
        "Images",
        "Amortised divides what is shared among those that share it. "
        "Reclaimable is what removing the image, and then gc, would free.",
        "image",
        [("Image", "text"), *((name, "bytes") for name in columns)],
        [(shown(cost), *_numbers(cost)) for cost in costs[:MAX_IMAGES]],
        5,
        foot,
    )


def _numbers(cost: Cost) -> tuple[int, ...]:
    return (
        cost.apparent,
        cost.on_disk,
        cost.shared,
        cost.exclusive,
        cost.amortised,
        cost.reclaimable,
    )


def layers_table(found: Sequence[LayerCost]) -> Table:
    """Return the table of layers."""
    layers = sorted(found, key=lambda layer: (-layer.on_disk, -layer.size, layer.digest))
    rest = layers[MAX_LAYERS:]
    foot = [
        (f"and {len(rest):,} smaller", sum(layer.on_disk for layer in rest), "", "")
        for _ in rest[:1]
    ]
    return Table(
        "layers",
        "Layers",
        "What each layer takes, how many images share it, and what made it.",
        "layer",
        [("Layer", "made"), ("On disk", "bytes"), ("Images", "number"), ("Created by", "made")],
        [
            (_short(layer.digest), layer.on_disk, len(layer.images), _cut(layer.created_by))
            for layer in layers[:MAX_LAYERS]
        ],
        1,
        foot,
    )


def daemon_table(found: Comparison) -> Table:
    """Return the table of images that a daemon has, too."""
    others = found.others
    return Table(
        "daemon",
        "Beside the Docker daemon",
        f"The same images by the account of the {printable(found.account.daemon)}. "
        + (f"It has {counted(others, 'more image')} that the store lacks. " if others else "")
        + "It counts layers unpacked; unique is what it would free without the image.",
        "image",
        [
            ("Image", "text"),
            ("On disk", "bytes"),
            ("Exclusive", "bytes"),
            ("Daemon", "bytes"),
            ("Unique", "bytes"),
            ("Difference", "bytes"),
        ],
        [
            (
                shown(row.cost),
                row.cost.on_disk,
                row.cost.exclusive,
                row.size,
                "" if row.unique is None else row.unique,
                row.size - row.cost.on_disk,
            )
            for row in found.rows[:MAX_IMAGES]
        ],
        3,
        [
            ("together", found.together, "", "", "", ""),
            ("all that the daemon has", "", "", found.account.total, "", ""),
        ],
    )


def listed(table: Table) -> dict[str, object]:
    """Return what the script is told of a table."""
    kinds = [kind for _, kind in table.columns]
    return {"noun": table.noun, "kinds": kinds, "rows": table.rows, "by": table.by}


def section(table: Table, size: Sizes) -> str:
    """Return the table as HTML, with the rows that need no script."""
    heads = "".join(
        f'<th scope="col"{_class(kind)}>{escape(label)}</th>' for label, kind in table.columns
    )
    rows = "".join(_row(table, row, size) for row in table.rows[:_STATIC])
    if left := len(table.rows) - len(table.rows[:_STATIC]):
        words = f"and {left:,} more, which scripts would show"
        rows += f'<tr><td class="text" colspan="{len(table.columns)}">{words}</td></tr>'
    foot = "".join(_row(table, row, size) for row in table.foot)
    return (
        f'<section id="{table.name}" aria-labelledby="{table.name}-title">'
        f'<h2 id="{table.name}-title">{escape(table.title)}</h2>'
        f'<p class="note">{escape(table.note)}</p><div class="tools" hidden></div>'
        f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody><tfoot>{foot}</tfoot></table>"
        "</section>"
    )


def _row(table: Table, row: Sequence[Cell], size: Sizes) -> str:
    cells: list[str] = []
    for (label, kind), cell in zip(table.columns, row, strict=True):
        text = escape(_written(cell, kind, size))
        cells.append(f'<td{_class(kind)} data-label="{escape(label)}">{text}</td>')
    return f"<tr>{''.join(cells)}</tr>"


def _written(cell: Cell, kind: Kind, size: Sizes) -> str:
    if isinstance(cell, str):
        return cell
    if kind == "number":
        return f"{cell:,}"
    return f"-{size(-cell)}" if cell < 0 else size(cell)


def _class(kind: Kind) -> str:
    return {"text": ' class="text"', "made": ' class="text made"'}.get(kind, "")


def _short(digest: Digest) -> str:
    """Return a digest as far as people compare it."""
    return f"{digest.algorithm}:{digest.encoded[:16]}"


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return printable(line if len(line) <= MAX_TEXT else f"{line[:MAX_TEXT]}…")


def shown(cost: Cost) -> str:
    """Return how an image is called: by its reference, else by its path below layouts/."""
    return printable(str(Reference.from_path(cost.name) or cost.name))


def counted(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
