"""The page of `bench --html` in a browser: charts that fit, in both schemes."""

from pathlib import Path

import pytest

from ocistow.bench.machine import Machine
from ocistow.bench.measure import Result
from ocistow.bench.page import page
from ocistow.bench.processes import Sample
from ocistow.bench.report import Report
from ocistow.testing.chromium import Scheme, Tab

pytestmark = pytest.mark.chromium

MACHINE = Machine("a processor", 2, 24 << 30, "6.1", "ext4", "", {"python": "3.11"})


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_shows_a_bar_of_parts_for_each_way(
    tab: Tab, tmp_path: Path, scheme: Scheme, width: int
) -> None:
    times = {way: [Sample(number, 0, 0)] for number, way in enumerate(("ocistow", "layout"), 1)}
    steps = ("first build", *(f"first build: {part}" for part in ("in", "export", "out")))
    results = [Result("image", step, times) for step in steps]
    file = tmp_path / "page.html"
    file.write_text(page(Report("2026", 1, False, MACHINE, results, {}, "app")))
    tab.resize(width, 800)
    tab.show(scheme)
    tab.goto(file.as_uri())
    assert len(tab.requests) == 1
    assert tab.complaints == []
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    lengths = (  # of ocistow's bar, and of the other
        "((w, s) => s(w.slice(3)) / s(w.slice(0, 3)))("
        "[...document.querySelectorAll('.chart rect')].map(r => r.getBoundingClientRect().width)"
        ".filter(w => w > 0), w => w.reduce((a, b) => a + b))"
    )
    assert tab.evaluate(lengths) == pytest.approx(2, rel=0.05)
    assert tab.texts(".glance b") == ["2.00"]
    wide = "document.querySelector('.wide')"
    assert tab.evaluate(f"{wide}.scrollWidth - {wide}.clientWidth") == 0
