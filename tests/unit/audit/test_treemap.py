from itertools import combinations
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocistow.audit.treemap import Node, forest, pruned, squarified
from ocistow.testing.costs import names, usage_of


def nodes(top: Node) -> list[Node]:
    return [top, *(below for child in top.children for below in nodes(child))]


@given(
    st.lists(st.integers(1, 10**12), min_size=1, max_size=60),
    st.floats(1, 2000),
    st.floats(1, 2000),
)
def test_rectangles_have_their_areas_and_do_not_overlap(
    sizes: list[int], width: float, height: float
) -> None:
    sizes.sort(reverse=True)
    places = squarified(sizes, (5.0, 7.0, width, height))
    scale = width * height / sum(sizes)
    speck = 1e-4 * max(width, height)  # a tenth of a pixel; sizes may differ by all digits
    for size, (left, top, wide, high) in zip(sizes, places, strict=True):
        assert wide * high == pytest.approx(size * scale, rel=1e-6, abs=1e-6)
        assert left >= 5 - speck
        assert top >= 7 - speck
        assert left + wide <= 5 + width + speck
        assert top + high <= 7 + height + speck
    for one, other in combinations(places, 2):
        across = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
        along = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
        assert min(across, along) < speck


def test_equal_sizes_make_squares() -> None:
    for _, _, width, height in squarified([1.0] * 16, (0, 0, 400, 400)):
        assert [width, height] == pytest.approx([100, 100])


def test_nothing_has_no_rectangles() -> None:
    assert squarified([], (0, 0, 10, 10)) == []


def test_images_are_in_repositories_in_registries_and_all_adds_up() -> None:
    usage = usage_of(names(500))
    top = forest(usage, whole=True)
    assert top.size == usage.everything
    assert top.images == 500
    for node in nodes(top):
        if node.children:
            assert sum(child.size for child in node.children) == node.size
            assert sum(child.images for child in node.children) == node.images
    *_, rest = top.children
    assert (rest.name, rest.images, rest.size) == ("not images", 0, 60_600_000)
    assert forest(usage, whole=False).size == usage.total.on_disk


def test_digests_and_paths_that_are_no_references_have_their_places() -> None:
    paths = [
        PurePosixPath("e.x", "a", "b", "sha256", "1" * 64),
        PurePosixPath("e.x", "a", "b", "latest"),
        PurePosixPath("e.x", "c", "latest"),
        PurePosixPath("UPPER", "Case"),
        PurePosixPath("single"),
    ]
    top = forest(usage_of(paths), whole=False)
    assert {node.name for node in top.children} == {"e.x", "UPPER", "single"}
    [registry] = [node for node in top.children if node.name == "e.x"]
    assert [node.name for node in registry.children] == ["a/b", "c"]
    assert [n.name for n in registry.children[0].children] == [f"sha256:{'1' * 64}", "latest"]


def test_a_registry_with_one_repository_is_one_with_it() -> None:
    """Else the page begins with a rectangle in a rectangle, and no image."""
    paths = [PurePosixPath("e.x", "a", tag) for tag in ("1", "2", "3")]
    [only] = forest(usage_of(paths), whole=False).children
    assert only.name == "e.x/a"
    assert [node.name for node in only.children] == ["1", "2", "3"]


def test_control_characters_of_a_name_are_seen() -> None:
    top = forest(usage_of([PurePosixPath("e.x", "a\x1b[2J\u202e", "1")]), whole=False)
    assert all(node.name.isprintable() for node in nodes(top))


def test_of_very_many_the_largest_stay_and_all_still_adds_up() -> None:
    usage = usage_of(names(20_000))
    whole = forest(usage, whole=True)
    top = pruned(whole, budget=1000, width=50)
    assert len(nodes(top)) < 1100
    assert top.size == whole.size
    for node in nodes(top):
        assert len(node.children) <= 51
        if node.children:
            assert sum(child.size for child in node.children) == node.size
            assert sum(child.images for child in node.children) == node.images
    smaller = [node for node in nodes(top) if node.smaller]
    assert smaller
    assert all(node.smaller > 0 and not node.children for node in smaller)


def test_a_small_one_stays_as_it_is() -> None:
    whole = forest(usage_of(names(30)), whole=True)
    assert [node.name for node in nodes(pruned(whole))] == sorted_names(whole)


def sorted_names(node: Node) -> list[str]:
    children = sorted(node.children, key=lambda child: (-child.size, child.name))
    return [node.name, *(name for child in children for name in sorted_names(child))]
