"""Curves are drawn where their numbers are, with names that can be read."""

from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.scenarios.plot import HEIGHT, WIDTH, Line, Panel, drawing, ticks

SVG = "{http://www.w3.org/2000/svg}"
NUMBERS = st.floats(1e-4, 1e9)


def drawn(*lines: Line) -> ElementTree.Element:
    panel = Panel("T", "names", lines, "{:,.0f}".format, "{:.3g} s".format)
    return ElementTree.fromstring(drawing([panel], "A picture"))


def test_a_point_lies_where_its_logarithms_are() -> None:
    picture = drawn(Line("du", [(10, 1), (100, 10), (1000, 100)]))
    dots = [(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in picture.iter(f"{SVG}circle")]
    (left, low), (middle, between), (right, high) = dots
    assert middle == pytest.approx((left + right) / 2, abs=0.1)
    assert between == pytest.approx((low + high) / 2, abs=0.1)
    assert low > high


def test_what_it_says_is_text() -> None:
    picture = drawn(Line("<b> & co", [(1, 1)]))
    assert "<b> & co" in [text.text for text in picture.iter(f"{SVG}text")]


def test_each_point_tells_its_numbers() -> None:
    picture = drawn(Line("du", [(1000, 2)]))
    assert [title.text for title in picture.iter(f"{SVG}title")] == ["du, 1,000: 2 s"]


@settings(max_examples=25)
@given(st.lists(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1), min_size=1, max_size=9))
def test_everything_is_in_the_picture_and_no_name_lies_over_another(
    lines: list[list[tuple[float, float]]],
) -> None:
    picture = drawn(*[Line(f"line {n}", sorted(points)) for n, points in enumerate(lines)])
    for dot in picture.iter(f"{SVG}circle"):
        assert 0 <= float(dot.attrib["cx"]) <= WIDTH
        assert 0 <= float(dot.attrib["cy"]) <= HEIGHT
    names = [t for t in picture.iter(f"{SVG}text") if t.attrib.get("class") == "name"]
    heights = sorted(float(name.attrib["y"]) for name in names)
    assert all(below - above > 13 for above, below in pairwise(heights))
    assert heights[0] > 0
    across = [t for t in picture.iter(f"{SVG}text") if t.attrib.get("text-anchor") == "middle"]
    assert heights[-1] <= min(float(text.attrib["y"]) for text in across) - 13


@settings(max_examples=25)
@given(NUMBERS, st.floats(1, 1e6))
def test_ticks_enclose_the_numbers(low: float, factor: float) -> None:
    found = ticks(low, low * factor)
    assert found[0] <= low * 1.001
    assert found[-1] >= low * factor * 0.999
    assert 2 <= len(found) <= 12
