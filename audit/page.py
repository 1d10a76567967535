"""A page that shows where the disk went: one HTML file that needs nothing else.

Names, labels and commands come out of images that anybody may have made. They are text here:
escaped in HTML, and put into elements by `textContent` in the script, which a policy
forbids to load or send anything.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from string import Template
from typing import Literal

from ..oci.reference import Reference
from ..oci.version import version
from ..oci.wording import printable
from .chart import Point, Sizes, bars, growth, treemap
from .daemon import Account, Held
from .potential import Potential
from .treemap import Node, forest, pruned
from .usage import Cost, Usage

MAX_IMAGES = 10_000  # rows of the table; all others are one
MAX_LAYERS = 5_000
MAX_TEXT = 300  # characters of a command that made a layer

_STATIC = 25  # rows that need no script

Kind = Literal["text", "made", "number", "bytes"]
Cell = str | int


@dataclass(frozen=True, slots=True)
class SharedLayer:
    """A layer of images.

    Attributes:
        size: bytes on disk.
        images: how many images have it.
        created_by: the command that made it, by the history of one of them; may be empty.
    """

    digest: str
    size: int
    images: int
    created_by: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a daemon says about images of the store.

    Attributes:
        rows: each image that both have, with the daemon's own.
        together: what these take in the store, each byte once.
    """

    account: Account
    rows: Sequence[tuple[Cost, Sequence[Held]]]
    together: int


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a page can show; what is None or empty was not asked for, or is not known.

    Attributes:
        whole: whether all images of the store were asked for.
        points: what earlier runs recorded, in the order of time.
    """

    store: Path
    taken: datetime
    usage: Usage
    whole: bool
    layers: Sequence[SharedLayer] = ()
    points: Sequence[Point] = ()
    comparison: Comparison | None = None
    potential: Potential | None = None


@dataclass(frozen=True, slots=True)
class _Table:
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


def page(facts: Facts, size: Sizes) -> str:
    """Return the page; `size` is how bytes are written.

    It has at most about 5 MB, whatever the store holds.
    """
    style, script = _part("page.css"), _part("page.js")
    images, compared, layers = _images(facts), _compared(facts), _layers(facts)
    top = pruned(forest(facts.usage, whole=facts.whole))
    moment = facts.taken.astimezone(UTC)
    return Template(_part("page.html")).substitute(
        policy=f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'",
        version=escape(version()),
        store=escape(printable(str(facts.store))),
        stamp=moment.isoformat(timespec="seconds"),
        taken=f"{moment:%Y-%m-%d %H:%M} UTC",
        style=style,
        script=script,
        cards=_cards(facts, size),
        map=treemap(top, size),
        sections="\n".join(
            [
                _growth(facts, size),
                _section(images, size),
                _section(compared, size) if compared else "",
                _saving(facts, size),
                _section(layers, size) if layers else "",
            ]
        ),
        data=_embedded(
            {
                "tree": _listed(top),
                "tables": {
                    table.name: _table(table) for table in (images, compared, layers) if table
                },
            }
        ),
    )


def shown(cost: Cost) -> str:
    """Return how an image is called: by its reference, else by its path below layouts/."""
    return printable(str(Reference.from_path(cost.name) or cost.name))


def _part(name: str) -> str:
    return Path(__file__).with_name(name).read_text("utf-8")


def _hash(text: str) -> str:
    """Return what a policy calls an element with this text. Source: CSP level 3, "hash-source"."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _embedded(document: object) -> str:
    """Return JSON that ends no script element and starts no comment in one."""
    text = json.dumps(document, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _listed(node: Node) -> list[object]:
    children = [_listed(child) for child in node.children]
    return [node.name, node.size, node.exclusive, node.images, node.smaller, children]


def _table(table: _Table) -> dict[str, object]:
    kinds = [kind for _, kind in table.columns]
    return {"noun": table.noun, "kinds": kinds, "rows": table.rows, "by": table.by}


def _cards(facts: Facts, size: Sizes) -> str:
    usage = facts.usage
    total = usage.total.on_disk
    saved = usage.separate - total
    share = 100 * saved / usage.separate if usage.separate else 0.0
    cards = [
        (size(total), f"on disk, for {_count(usage.total.images, 'image')}"),
        (size(usage.separate), "without sharing"),
        (f"{share:.0f} %", f"saved: {size(saved)}, a factor of {usage.factor:.2f}"),
        (size(usage.total.apparent), "apparent: the files of all images as they are read"),
    ]
    if facts.whole:
        cards.append((size(usage.garbage), "that gc alone would free"))
        cards.append((size(usage.everything), "the whole store"))
    return "".join(f"<li><b>{escape(b)}</b><span>{escape(t)}</span></li>" for b, t in cards)


def _images(facts: Facts) -> _Table:
    costs = sorted(facts.usage.layouts, key=lambda cost: (-cost.amortised, str(cost.name)))
    rest = costs[MAX_IMAGES:]
    foot: list[Sequence[Cell]] = []
    if rest:
        sums = (sum(column) for column in zip(*map(_numbers, rest), strict=True))
        foot.append((f"and {len(rest):,} smaller", *sums))
    total, exclusive = facts.usage.total, sum(cost.exclusive for cost in costs)
    numbers = list(_numbers(total))
    numbers[2:4] = total.on_disk - exclusive, exclusive  # what these share with each other, too
    foot.append(("total, what is shared once", *numbers))
    columns = ("Apparent", "On disk", "Shared", "Exclusive", "Amortised", "Reclaimable")
    return _Table(
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


def _layers(facts: Facts) -> _Table | None:
    if not facts.layers:
        return None
    layers = sorted(facts.layers, key=lambda layer: (-layer.size, layer.digest))
    rest = layers[MAX_LAYERS:]
    foot = [
        (f"and {len(rest):,} smaller", sum(layer.size for layer in rest), "", "") for _ in rest[:1]
    ]
    return _Table(
        "layers",
        "Layers",
        "What each layer takes, how many images share it, and what made it.",
        "layer",
        [("Layer", "made"), ("On disk", "bytes"), ("Images", "number"), ("Created by", "made")],
        [
            (short(layer.digest), layer.size, layer.images, _cut(layer.created_by))
            for layer in layers[:MAX_LAYERS]
        ],
        1,
        foot,
    )


def _compared(facts: Facts) -> _Table | None:
    found = facts.comparison
    if found is None:
        return None
    rows: list[Sequence[Cell]] = []
    for cost, images in found.rows:
        unique = [image.unique for image in images]
        theirs = sum(image.size for image in images)
        alone: Cell = "" if None in unique else sum(number or 0 for number in unique)
        rows.append(
            (shown(cost), cost.on_disk, cost.exclusive, theirs, alone, theirs - cost.on_disk)
        )
    rows.sort(key=lambda row: -int(row[3]))
    known = {image.identifier for _, images in found.rows for image in images}
    others = len(found.account.images) - len(known)
    total = found.account.total
    return _Table(
        "daemon",
        "Beside the Docker daemon",
        f"The same images by the account of the {printable(found.account.daemon)}. "
        + (f"It has {_count(others, 'more image')} that the store lacks. " if others else "")
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
        rows[:MAX_IMAGES],
        3,
        [("together; the daemon's with all it has", found.together, "", total, "", "")],
    )


def _growth(facts: Facts, size: Sizes) -> str:
    if len(facts.points) < 2:
        return ""
    first = facts.points[0].moment
    note = f"{_count(len(facts.points), 'recorded run')} since {first:%Y-%m-%d}."
    return (
        '<section aria-labelledby="growth"><h2 id="growth">Growth</h2>'
        f'<p class="note">{escape(note)}</p>{growth(facts.points, size)}</section>'
    )


def _saving(facts: Facts, size: Sizes) -> str:
    found = facts.potential
    if found is None:
        return ""

    def words(stored: int, plain: int) -> str:
        share = 100 * (1 - stored / found.stored) if found.stored else 0.0
        saved = f", {share:.1f} % less" if stored != found.stored else ""
        return f"{size(stored)}{saved}; {size(plain)} inflated"

    rows = [
        ("layers, as they are", found.stored, words(found.stored, found.plain)),
        ("each file once", found.by_file.stored, words(found.by_file.stored, found.by_file.plain)),
        (
            "each chunk of a file once",
            found.by_chunk.stored,
            words(found.by_chunk.stored, found.by_chunk.plain),
        ),
    ]
    notes = [
        f"An estimate from {_count(found.layers, 'layer')} with {_count(found.files, 'file')}: "
        "what storing smaller things once would need, compressed as well as the layers are."
    ]
    if found.deviation:
        notes.append(f"It is from a sample; its standard deviation is {found.deviation:.1%}.")
    if found.skipped:
        notes.append(f"{_count(len(found.skipped), 'layer')} could not be read.")
    return (
        '<section aria-labelledby="saving"><h2 id="saving">What finer sharing would save</h2>'
        f'<p class="note">{escape(" ".join(notes))}</p>'
        f"{bars(rows, 'What finer sharing would save')}</section>"
    )


def _section(table: _Table, size: Sizes) -> str:
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


def _row(table: _Table, row: Sequence[Cell], size: Sizes) -> str:
    cells: list[str] = []
    for (label, kind), cell in zip(table.columns, row, strict=True):
        text = cell if isinstance(cell, str) else size(cell) if kind == "bytes" else f"{cell:,}"
        cells.append(f'<td{_class(kind)} data-label="{escape(label)}">{escape(text)}</td>')
    return f"<tr>{''.join(cells)}</tr>"


def _class(kind: Kind) -> str:
    return {"text": ' class="text"', "made": ' class="text made"'}.get(kind, "")


def short(digest: str) -> str:
    """Return a digest as far as people compare it."""
    algorithm, colon, encoded = digest.partition(":")
    return f"{algorithm}{colon}{encoded[:16]}"


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return printable(line if len(line) <= MAX_TEXT else f"{line[:MAX_TEXT]}…")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
