"""A page that shows where the disk went: one HTML file that needs nothing else.

Names, labels and commands come out of images that anybody may have made. They are text here:
escaped in HTML, and put into elements by `textContent` in the script, which a policy
forbids to load or send anything.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from string import Template

from ..oci.version import version
from ..oci.wording import printable
from .chart import Sizes, bars, growth, moment, treemap
from .daemon import Comparison
from .history import Run
from .layers import LayerCost
from .parts import hash_source, part
from .potential import Potential
from .tables import counted, daemon_table, images_table, layers_table, listed, section
from .treemap import Node, forest, pruned
from .usage import Usage


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a page can show; what is None or empty was not asked for, or is not known.

    Attributes:
        runs: what was recorded before, in the order of time.
    """

    store: Path
    taken: datetime
    usage: Usage
    layers: Sequence[LayerCost] = ()
    runs: Sequence[Run] = ()
    comparison: Comparison | None = None
    potential: Potential | None = None

    @property
    def is_whole(self) -> bool:
        """Whether all images of the store were asked for."""
        return len(self.usage.layouts) == len(self.usage.names)


def page(facts: Facts, size: Sizes) -> str:
    """Return the page; `size` is how bytes are written.

    It has at most about 5 MB, whatever the store holds.
    """
    style, script = part("page.css"), part("page.js")
    images = images_table(facts.usage)
    compared = daemon_table(facts.comparison) if facts.comparison else None
    layers = layers_table(facts.layers) if facts.layers else None
    top = pruned(forest(facts.usage, whole=facts.is_whole))
    taken = facts.taken.astimezone(UTC)
    return Template(part("page.html")).substitute(
        policy=f"default-src 'none'; style-src {hash_source(style)}; "
        f"script-src {hash_source(script)}; base-uri 'none'; form-action 'none'",
        version=escape(version()),
        store=escape(printable(str(facts.store))),
        stamp=taken.isoformat(timespec="seconds"),
        taken=f"{taken:%Y-%m-%d %H:%M} UTC",
        style=style,
        script=script,
        cards=_cards(facts, size),
        map=treemap(top, size),
        sections="\n".join(
            [
                _growth(facts, size),
                section(images, size),
                section(compared, size) if compared else "",
                _saving(facts, size),
                section(layers, size) if layers else "",
            ]
        ),
        data=_embedded(
            {
                "tree": _listed(top),
                "tables": {
                    table.name: listed(table) for table in (images, compared, layers) if table
                },
            }
        ),
    )


def _embedded(document: object) -> str:
    """Return JSON that ends no script element and starts no comment in one."""
    text = json.dumps(document, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _listed(node: Node) -> list[object]:
    children = [_listed(child) for child in node.children]
    return [node.name, node.size, node.exclusive, node.images, node.smaller, children]


def _cards(facts: Facts, size: Sizes) -> str:
    usage = facts.usage
    total = usage.total.on_disk
    saved = usage.separate - total
    share = 100 * saved / usage.separate if usage.separate else 0.0
    cards = [
        (size(total), f"on disk, for {counted(usage.total.images, 'image')}"),
        (size(usage.separate), "without sharing"),
        (f"{share:.0f} %", f"saved: {size(saved)}, a factor of {usage.factor:.2f}"),
    ]
    if facts.is_whole:
        cards.append((size(usage.garbage), "that gc alone would free"))
        cards.append((size(usage.everything), "the whole store"))
    if usage.unreadable:
        unread = f"{len(usage.unreadable):,}"
        cards.append((unread, "not counted: directories that may not be read"))
    return "".join(f"<li><b>{escape(b)}</b><span>{escape(t)}</span></li>" for b, t in cards)


def _growth(facts: Facts, size: Sizes) -> str:
    if len(facts.runs) < 2:
        return ""
    first = moment(facts.runs[0])
    note = f"{counted(len(facts.runs), 'recorded run')} since {first:%Y-%m-%d}."
    return (
        '<section aria-labelledby="growth"><h2 id="growth">Growth</h2>'
        f'<p class="note">{escape(note)}</p>{growth(facts.runs, size)}</section>'
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
        f"An estimate from {counted(found.layers, 'layer')} with {counted(found.files, 'file')}: "
        "what storing smaller things once would need, compressed as well as the layers are."
    ]
    if found.deviation:
        notes.append(f"It is from a sample; its standard deviation is {found.deviation:.1%}.")
    if found.skipped:
        notes.append(f"{counted(len(found.skipped), 'layer')} could not be read.")
    return (
        '<section aria-labelledby="saving"><h2 id="saving">What finer sharing would save</h2>'
        f'<p class="note">{escape(" ".join(notes))}</p>'
        f"{bars(rows, 'What finer sharing would save')}</section>"
    )
