"""How costs are shown: as a table, as a tree, as JSON."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence

from ..audit.tree import Branch
from ..audit.usage import Cost, Usage
from ..oci.wording import printable
from .output import count, line, listing, shown, sizes, table

_KEYS: dict[str, Callable[[Cost], int]] = {
    "apparent": lambda cost: cost.apparent,
    "on-disk": lambda cost: cost.on_disk,
    "shared": lambda cost: cost.shared,
    "exclusive": lambda cost: cost.exclusive,
    "amortised": lambda cost: cost.amortised,
    "reclaimable": lambda cost: cost.reclaimable,
}
SORT = ("name", *_KEYS)
_SHOWN = 3  # of the directories that cannot be read
_TITLES = tuple(key.upper().replace("-", " ") for key in _KEYS)


def ordered(costs: Sequence[Cost], by: str) -> Sequence[Cost]:
    """Return costs in the order asked for: by name, or the largest first."""
    return costs if by == "name" else sorted(costs, key=_KEYS[by], reverse=True)


def print_table(layouts: Sequence[Cost], total: Cost, by: str, *, exactly: bool) -> None:
    """Print a line an image, and one for all."""
    rows = [(shown(cost.name), cost) for cost in ordered(layouts, by)]
    _print([*rows, ("total", total.below(layouts))], exactly=exactly)


def print_tree(top: Branch, by: str, depth: int | None, *, exactly: bool) -> None:
    """Print a line a registry, repository and image."""
    rows = [(f"{stem}{name}", cost) for stem, name, cost in _drawn(top, by, depth, "")]
    _print([*rows, ("total", top.cost)], exactly=exactly)


def print_json(layouts: Sequence[Cost], more: Mapping[str, object], by: str) -> None:
    """Print a JSON document of images, and of `more`."""
    listing("images", map(cost_members, ordered(layouts, by)), more)


def print_beside(found: Usage, *, exactly: bool) -> None:
    """Say what the images would take alone, and where the rest of the disk is."""
    size = sizes(exactly=exactly)
    if found.layouts:
        line(
            f"{count(len(found.layouts), 'image')} would take {size(found.separate)} on disk "
            f"without sharing: {found.factor:.2f} times as much"
        )
    if found.total.other:
        line(f"of this, {size(found.total.other)} are files that belong to no image")
    beside = {
        f"{count(found.unreferenced_blobs, 'blob')} of the pool that no image has": (
            found.unreferenced
        ),
        "blobs of the pool that images need but have no link to": found.unlinked,
        "files outside of all images": found.outside,
        **{rest.name: rest.on_disk for rest in found.rest},
        "directories": found.directories,
    }
    line("besides: " + ", ".join(f"{what} {size(n)}" for what, n in beside.items() if n))
    if len(found.layouts) == len(found.names):
        line(f"the store takes {size(found.everything)}; gc would free {size(found.garbage)}")
        if found.leased:
            line(f"{size(found.leased)} more are in use by what runs now")
    if found.unreadable:
        line(f"not counted, since it may not be read: {_few(found.unreadable)}")


def cost_members(cost: Cost) -> dict[str, object]:
    """Return a cost for a JSON document."""
    return {
        "name": shown(cost.name),
        "path": str(cost.name),
        "images": cost.images,
        "apparent": cost.apparent,
        "onDisk": cost.on_disk,
        "shared": cost.shared,
        "exclusive": cost.exclusive,
        "amortised": cost.amortised,
        "reclaimable": cost.reclaimable,
        "other": cost.other,
    }


def together_members(layouts: Sequence[Cost], total: Cost) -> dict[str, object]:
    """Return what several images cost together for a JSON document: the table's last line."""
    members = cost_members(total.below(layouts))
    return {key: member for key, member in members.items() if key not in ("name", "path")}


def total_members(found: Usage) -> dict[str, object]:
    """Return what is true of all images together, and what the store has beside them."""
    return {
        **together_members(found.layouts, found.total),
        "separate": found.separate,
        "factor": round(found.factor, 4),
        "unlinked": found.unlinked,
        "unreferencedBlobs": found.unreferenced_blobs,
        "unreferenced": found.unreferenced,
        "outside": found.outside,
        "rest": {rest.name: rest.on_disk for rest in found.rest},
        "directories": found.directories,
        "garbage": found.garbage,
        "leased": found.leased,
        "everything": found.everything,
        "unreadable": list(map(printable, found.unreadable)),
    }


def tree_members(top: Branch, by: str, depth: int | None) -> dict[str, object]:
    """Return a tree for a JSON document, without what lies deeper than asked for."""
    members = cost_members(top.cost)
    if depth is None or depth > 0:
        left = None if depth is None else depth - 1
        members["below"] = [tree_members(branch, by, left) for branch in _sorted(top, by)]
    return members


def _drawn(top: Branch, by: str, depth: int | None, stem: str) -> Iterable[tuple[str, str, Cost]]:
    """Yield the lines of a tree: directories with but one in them are drawn as one."""
    branches = _sorted(top, by)
    plain = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    fork, last, pipe = ("|-", "`-", "| ") if plain else ("├─", "└─", "│ ")
    for number, found in enumerate(branches, 1):
        branch = found
        while len(branch.below) == 1 and branch.cost.images == branch.below[0].cost.images:
            (branch,) = branch.below
        is_last = number == len(branches)
        name = str(branch.cost.name.relative_to(top.cost.name))
        edge = "" if top.cost.name.parts == () else f"{last if is_last else fork} "
        yield f"{stem}{edge}", name, branch.cost
        if depth is None or depth > 1:
            inner = "" if not edge else f"{stem}{'  ' if is_last else pipe} "
            yield from _drawn(branch, by, None if depth is None else depth - 1, inner)


def _sorted(branch: Branch, by: str) -> Sequence[Branch]:
    if by == "name":
        return branch.below
    return sorted(branch.below, key=lambda below: _KEYS[by](below.cost), reverse=True)


def _few(paths: Sequence[str]) -> str:
    more = len(paths) - _SHOWN
    said = ", ".join(map(printable, paths[:_SHOWN]))
    return f"{said} and {more} more" if more > 0 else said


def _print(rows: Iterable[tuple[str, Cost]], *, exactly: bool) -> None:
    size = sizes(exactly=exactly)
    table(
        ("NAME", *_TITLES),
        [[name, *(size(number(cost)) for number in _KEYS.values())] for name, cost in rows],
        right=range(1, len(_TITLES) + 1),
    )
