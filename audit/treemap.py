"""Who owns what, as areas: registries, repositories in them, and their images.

The area of an image is its amortised size, so that the areas of all images add up to
what they take together.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

from ..oci.digest import is_encoded
from ..oci.wording import printable
from .usage import Cost, Usage

BUDGET = 6000  # nodes of a page; the largest are told apart
WIDTH = 100  # nodes next to each other; more than that are specks

Rectangle = tuple[float, float, float, float]  # left, top, width, height


@dataclass(slots=True)
class Node:
    """A rectangle, and those in it.

    Attributes:
        size: bytes on disk; those of its children add up to it.
        exclusive: the part of `size` that only one image has.
        images: how many images it stands for; 0 for what belongs to none.
        smaller: how many nodes it stands for, when it is all the smaller ones together.
    """

    name: str
    size: int = 0
    exclusive: int = 0
    images: int = 0
    smaller: int = 0
    children: list[Node] = field(default_factory=list["Node"])


def forest(usage: Usage, *, whole: bool) -> Node:
    """Return all images by registry and repository; with what else the store takes, if `whole`."""
    top, nodes = Node("all images"), dict[tuple[str, ...], Node]()
    for cost in usage.layouts:
        way = _way(cost)
        above = top
        for depth in range(1, len(way) + 1):
            node = nodes.get(way[:depth])
            if node is None:
                node = nodes[way[:depth]] = Node(printable(way[depth - 1]))
                above.children.append(node)
            above = node
        for node in (top, *(nodes[way[:depth]] for depth in range(1, len(way) + 1))):
            node.size += cost.amortised
            node.exclusive += cost.exclusive
            node.images += 1
    for node in top.children:
        _shorten(node)
    if whole and (others := _others(usage)):
        rest = Node("not images", sum(node.size for node in others), children=others)
        return Node(
            "the store", top.size + rest.size, top.exclusive, top.images, 0, [*top.children, rest]
        )
    return top


def pruned(top: Node, budget: int = BUDGET, width: int = WIDTH) -> Node:
    """Return the largest nodes, `budget` of them at most, and in each the rest as one.

    What is larger is looked into first, so that details are left where the bytes are.
    """
    copy = Node(top.name, top.size, top.exclusive, top.images)
    order = count()  # nodes cannot be compared
    waiting = [(-top.size, next(order), top, copy)]
    while waiting and budget > 0:
        _, _, node, made = heapq.heappop(waiting)
        largest = heapq.nsmallest(min(width, budget), node.children, key=_rank)
        for child in largest:
            made_child = Node(child.name, child.size, child.exclusive, child.images)
            made.children.append(made_child)
            if child.children:
                heapq.heappush(waiting, (-child.size, next(order), child, made_child))
        if left := len(node.children) - len(largest):
            made.children.append(_together(node, largest, left))
        budget -= len(made.children)
    return copy


def squarified(sizes: Sequence[float], into: Rectangle) -> list[Rectangle]:
    """Return a rectangle for each size, which must be positive and descend; none is very long.

    Source: Bruls, Huizing, van Wijk, "Squarified Treemaps", 2000.
    """
    left, top, width, height = into
    scale = width * height / sum(sizes) if sizes else 0.0
    areas = [size * scale for size in sizes]
    found: list[Rectangle] = []
    at = 0
    while at < len(areas):
        side = min(width, height)
        end, worst = at + 1, _worst(areas[at : at + 1], side)
        while end < len(areas) and (next_ := _worst(areas[at : end + 1], side)) <= worst:
            end, worst = end + 1, next_
        row = areas[at:end]
        thick = sum(row) / side if side else 0.0
        along = left if width < height else top
        for area in row:
            length = area / thick if thick else 0.0
            if width < height:
                found.append((along, top, length, thick))
            else:
                found.append((left, along, thick, length))
            along += length
        if width < height:
            top, height = top + thick, max(0.0, height - thick)
        else:
            left, width = left + thick, max(0.0, width - thick)
        at = end
    return found


def _worst(row: Sequence[float], side: float) -> float:
    """Return how far the longest rectangle of a row is from a square."""
    if not side:
        return 1.0
    total = sum(row)
    return max(side**2 * max(row) / total**2, total**2 / (side**2 * min(row)))


def _way(cost: Cost) -> tuple[str, ...]:
    """Return the names from the registry down to the image."""
    registry, *rest = cost.name.parts
    if len(rest) > 2 and is_encoded(rest[-2], rest[-1]):
        rest[-2:] = [":".join(rest[-2:])]
    return (registry, "/".join(rest[:-1]), rest[-1]) if len(rest) > 1 else (registry, *rest)


def _shorten(node: Node) -> None:
    """Make a registry with but one repository one with it, so that images show at once."""
    while len(node.children) == 1 and node.children[0].children:
        (child,) = node.children
        node.name, node.children = f"{node.name}/{child.name}", child.children


def _others(usage: Usage) -> list[Node]:
    named: Iterable[tuple[str, int]] = (
        ("blobs of the pool beside copies", usage.unlinked),
        ("blobs that no image has", usage.unreferenced),
        ("files outside of all images", usage.outside),
        ("directories", usage.directories),
        *((rest.name, rest.on_disk) for rest in usage.rest),
    )
    return [Node(printable(name), size) for name, size in named if size]


def _rank(node: Node) -> tuple[int, str]:
    return -node.size, node.name


def _together(node: Node, largest: Sequence[Node], left: int) -> Node:
    return Node(
        "",
        node.size - sum(child.size for child in largest),
        node.exclusive - sum(child.exclusive for child in largest),
        node.images - sum(child.images for child in largest),
        left,
    )


def drawn(top: Node, into: Rectangle) -> Iterator[tuple[Node, Rectangle]]:
    """Yield where the children of a node are in a rectangle; what has no size is nowhere."""
    children = sorted((child for child in top.children if child.size > 0), key=_rank)
    yield from zip(children, squarified([child.size for child in children], into), strict=True)
