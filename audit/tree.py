"""Costs by registry and repository: what all that lies below a directory has, and shares."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import PurePosixPath

from .usage import Cost, Usage


@dataclass(frozen=True, slots=True)
class Branch:
    """A directory below `layouts/`, with the directories and layouts in it.

    Attributes:
        cost: of all layouts at and below it, as if they were one: `shared` is what others
            have, too, that lie elsewhere.
        below: sorted by name; empty for a layout that has no others inside.
    """

    cost: Cost
    below: tuple[Branch, ...]


@dataclass(slots=True)
class _Node:
    """Sums of a directory: first its own, in the end with those of all below."""

    parts: tuple[str, ...]
    depth: int
    above: _Node | None
    below: dict[str, _Node] = field(default_factory=dict[str, "_Node"])
    images: int = 0
    apparent: int = 0
    on_disk: int = 0
    exclusive: int = 0
    amortised: int = 0
    reclaimable: int = 0
    other: int = 0

    def child(self, name: str) -> _Node:
        if name not in self.below:
            self.below[name] = _Node((*self.parts, name), self.depth + 1, self)
        return self.below[name]


def tree(usage: Usage) -> Branch:
    """Return the costs of the layouts that were asked for as a tree, the layout root on top.

    What several layouts below a directory share counts once there. Takes time in proportion to
    the links, since each share is counted where the ways to two neighbours meet.
    """
    root = _Node((), 0, None)
    asked = {cost.name: cost for cost in usage.layouts}
    leaves: dict[int, _Node] = {}
    for place, name in enumerate(usage.names):
        if (cost := asked.get(name)) is None:
            continue
        node = root
        for part in name.parts:
            node = node.child(part)
        leaves[place] = node
        node.images = 1
        node.apparent, node.amortised, node.other = cost.apparent, cost.amortised, cost.other
    for share in usage.shares:
        nodes = [leaves[place] for place in share.layouts if place in leaves]
        for node in nodes:
            node.on_disk += share.size
        for one, other in pairwise(nodes):
            _meeting(one, other).on_disk -= share.size
        if nodes and len(nodes) == len(share.layouts):
            _meeting(nodes[0], nodes[-1]).exclusive += share.size
    for share in usage.releases:
        nodes = [leaves[place] for place in share.layouts if place in leaves]
        if nodes and len(nodes) == len(share.layouts):
            _meeting(nodes[0], nodes[-1]).reclaimable += share.size
    return _branch(root)


def _meeting(one: _Node, other: _Node) -> _Node:
    """Return the lowest directory that both lie in, or are."""
    while one is not other:
        if one.depth < other.depth:
            one, other = other, one
        assert one.above is not None
        one = one.above
    return one


def _branch(node: _Node) -> Branch:
    below = tuple(_branch(node.below[name]) for name in sorted(node.below))
    costs = [branch.cost for branch in below]

    cost = Cost(
        PurePosixPath(*node.parts),
        node.images + sum(cost.images for cost in costs),
        node.apparent + sum(cost.apparent for cost in costs),
        node.on_disk + sum(cost.on_disk for cost in costs),
        node.exclusive + sum(cost.exclusive for cost in costs),
        node.amortised + sum(cost.amortised for cost in costs),
        node.reclaimable + sum(cost.reclaimable for cost in costs),
        node.other + sum(cost.other for cost in costs),
    )
    return Branch(cost, below)
