"""The page of `du --html` in a browser: what it shows, and what can be done with it."""

from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import pytest

from ocistow.audit.daemon import Account, Comparison, Held, Row
from ocistow.audit.page import Facts, page
from ocistow.audit.potential import Level, Potential
from ocistow.audit.tables import shown
from ocistow.cli.output import human
from ocistow.oci.digest import Digest
from ocistow.oci.document import inners
from ocistow.testing.chromium import Scheme, Tab
from ocistow.testing.costs import layers_of, names, runs_of, usage_of

pytestmark = pytest.mark.chromium

TAKEN = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
USAGE = usage_of(names(60))
HOSTILE = "</script><img src=x onerror='document.title=1'>"

# The least contrast of all texts that are seen. Source: WCAG 2.2, "contrast ratio".
CONTRAST = """
(() => {
  const channels = text => text.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const below = element => {
    for (let e = element; e; e = e.parentElement) {
      const found = channels(getComputedStyle(e).backgroundColor);
      if (found.length === 3 || found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  let worst = [99, ""];
  let count = 0;
  for (const e of document.body.querySelectorAll("*")) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!own || !e.getClientRects().length || e.matches("script, style, title, .unseen")) continue;
    const style = getComputedStyle(e);
    const colour = e instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [luminance(channels(colour)), luminance(below(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    count++;
    if (ratio < worst[0]) worst = [ratio, e.outerHTML.slice(0, 200)];
  }
  return [worst[0], worst[1], count];
})()
"""


def everything(text: str = "RUN make all") -> Facts:
    level = Level(9_000_000_000, 3_300_000_000)
    held = [
        Held(Digest("sha256", f"{n:064x}"), (), frozenset(), 10**8 * n, 10**7) for n in range(9)
    ]
    together = sum(cost.on_disk for cost in USAGE.layouts[:9])
    return Facts(
        Path("/var/lib/ocistow"),
        TAKEN,
        USAGE,
        layers=layers_of(120, text),
        runs=runs_of(9),
        comparison=Comparison(
            Account("docker daemon at unix:///var/run/docker.sock", tuple(held), 10**9),
            tuple(Row(c, (image,)) for c, image in zip(USAGE.layouts, held, strict=False)),
            together,
        ),
        potential=Potential(
            812, 4 * 10**9, 11 * 10**9, 310_233, 10**10, level, level, 0.002, 0, (), 70.0
        ),
    )


def show(tab: Tab, tmp_path: Path, facts: Facts) -> Tab:
    file = tmp_path / "page.html"
    file.write_text(page(facts, human))
    tab.goto(file.as_uri())
    settled(tab)
    return tab


def settled(tab: Tab) -> None:
    """Wait until everything that was to be drawn is."""
    tab.evaluate("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(() => r(1))))")


@pytest.fixture
def shown_page(tab: Tab, tmp_path: Path) -> Tab:
    return show(tab, tmp_path, everything())


def images(tab: Tab) -> list[str]:
    return tab.texts("#images tbody td:first-child")


def test_it_loads_nothing_and_complains_about_nothing(shown_page: Tab) -> None:
    assert len(shown_page.requests) == 1
    assert shown_page.complaints == []
    assert human(USAGE.total.on_disk) in shown_page.texts(".cards b")


def test_images_are_sorted_by_what_is_clicked(shown_page: Tab) -> None:
    by_amortised = sorted(USAGE.layouts, key=lambda cost: -cost.amortised)
    assert images(shown_page) == [shown(cost) for cost in by_amortised[:25]]
    shown_page.click("#images th:nth-child(5) button")
    by_exclusive = sorted(USAGE.layouts, key=lambda cost: -cost.exclusive)
    assert images(shown_page) == [shown(cost) for cost in by_exclusive[:25]]
    shown_page.click("#images th:nth-child(5) button")
    assert images(shown_page) == [shown(cost) for cost in by_exclusive[:-26:-1]]
    shown_page.click("#images th:first-child button")
    assert images(shown_page) == sorted(map(shown, USAGE.layouts))[:25]
    shown_page.click("#images .more")
    assert images(shown_page) == sorted(map(shown, USAGE.layouts))
    sizes = shown_page.texts("#images tbody td:nth-child(3)")
    by_name = sorted(USAGE.layouts, key=shown)
    assert sizes == [human(cost.on_disk) for cost in by_name]


def test_images_are_filtered_by_what_is_typed(shown_page: Tab) -> None:
    shown_page.click("#images input")
    shown_page.type("GHCR.io  api")
    chosen = [n for n in map(shown, USAGE.layouts) if "ghcr.io" in n and "api" in n]
    assert sorted(images(shown_page)) == sorted(chosen)
    assert shown_page.text("#images output") == f"{len(chosen)} of 60 images"
    shown_page.type("no such")
    assert images(shown_page) == []


def test_a_click_goes_into_the_treemap_and_the_way_leads_back(shown_page: Tab) -> None:
    registries = shown_page.texts("#map > .box > .name")
    shown_page.click("#map > button:nth-child(1)")
    settled(shown_page)
    assert shown_page.texts("#way [aria-current]")[0] in registries[0]
    repositories = shown_page.texts("#map > .box > .name")
    assert repositories != registries
    shown_page.click("#map > button:nth-child(1)")
    shown_page.click("#map > button:nth-child(1)")
    assert set(shown_page.texts("#map > .box > .name")) <= {
        name
        for name in shown_page.texts("#map > .box > .name")
        if name.startswith(("only in this image", "its part of what it shares"))
    }
    assert len(shown_page.texts("#way button")) == 3
    shown_page.click("#way button")
    assert shown_page.texts("#map > .box > .name") == registries


def test_keys_do_the_same(shown_page: Tab) -> None:
    registries = shown_page.texts("#map > .box > .name")
    shown_page.evaluate("document.querySelector('#map > button').focus()")
    shown_page.press("Enter")
    assert shown_page.texts("#map > .box > .name") != registries
    assert shown_page.evaluate("document.activeElement.parentElement.id") == "map"
    assert str(shown_page.evaluate("said.textContent")).startswith("Showing ")
    shown_page.press(" ")
    assert len(shown_page.texts("#way button")) == 2
    shown_page.press("Escape")
    shown_page.press("Escape")
    assert shown_page.texts("#map > .box > .name") == registries


def test_what_the_mouse_is_over_is_told(shown_page: Tab) -> None:
    shown_page.evaluate("document.querySelector('#map').scrollIntoView({block: 'center'})")
    shown_page.hover("#map > .box .leaf")
    tip = shown_page.text("#tip").splitlines()
    assert tip[0] in "".join(shown_page.texts("#map > .box .leaf .name"))
    assert " % of the store" in tip[1]
    assert tip[2].endswith(" exclusive")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(shown_page: Tab, scheme: Scheme) -> None:
    shown_page.show(scheme)
    for clicks in range(3):
        worst = shown_page.evaluate(CONTRAST)
        assert isinstance(worst, list)
        assert worst[0] >= 4.5, (clicks, worst)
        assert worst[2] > 200
        shown_page.click("#map > button:nth-child(1)")
    dark = shown_page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (dark == "rgb(15, 19, 24)") == (scheme == "dark")


@pytest.mark.parametrize("width", [320, 400, 700, 961, 1280, 2560])
def test_it_is_never_wider_than_the_window(shown_page: Tab, width: int) -> None:
    shown_page.resize(width, 800)
    settled(shown_page)
    assert shown_page.evaluate("document.documentElement.scrollWidth") == width
    assert shown_page.evaluate("map.clientWidth > 0.75 * Math.min(innerWidth, 1200)")


def test_all_of_a_table_is_printed_in_dark_ink(shown_page: Tab) -> None:
    shown_page.show("dark")
    assert shown_page.pdf().startswith(b"%PDF")
    shown_page.evaluate("dispatchEvent(new Event('beforeprint'))")
    shown_page.show("dark", media="print")
    assert len(images(shown_page)) == 60
    assert len(shown_page.texts("#layers tbody td:first-child")) == 120
    worst = shown_page.evaluate(CONTRAST)
    assert isinstance(worst, list)
    assert worst[0] >= 4.5, worst
    assert shown_page.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)"
    )
    assert shown_page.texts("input") == []


def test_it_is_of_use_without_scripts(tab: Tab, tmp_path: Path) -> None:
    tab.without_scripts()
    file = tmp_path / "page.html"
    file.write_text(page(everything(), human))
    tab.goto(file.as_uri())
    assert len(tab.texts("#map svg rect")) > 5
    assert len(images(tab)) == 26
    assert tab.texts("input, button") == []
    assert tab.complaints == []


def test_hostile_names_are_shown_as_text(tab: Tab, tmp_path: Path) -> None:
    paths = [*names(20), PurePosixPath("e.x", HOSTILE.replace("/", "|"), "1")]
    facts = everything(HOSTILE)
    usage = usage_of(sorted(paths))
    show(tab, tmp_path, Facts(Path(f"/{HOSTILE}"), TAKEN, usage, facts.layers))
    assert any(name.startswith("e.x/<|script><img src=x") for name in images(tab))
    assert HOSTILE in tab.text("#layers tbody td:last-child")
    assert HOSTILE in tab.text("header code")
    assert tab.evaluate("document.images.length") == 0
    assert str(tab.evaluate("document.title")).startswith("Disk usage of")
    assert len(tab.requests) == 1
    assert tab.complaints == []


def busy(tab: Tab) -> float:
    """Return the seconds of processor time that the page's thread has needed."""
    metrics = inners(tab.call("Performance.getMetrics"), "metrics", "the page")
    [seconds] = [one["value"] for one in metrics if one["name"] == "TaskDuration"]
    return float(str(seconds))


def test_a_page_of_a_hundred_thousand_images_opens(tab: Tab, tmp_path: Path) -> None:
    usage = usage_of(names(100_000))
    tab.call("Performance.enable", {"timeDomain": "threadTicks"})
    before = busy(tab)
    show(tab, tmp_path, Facts(Path("/srv/store"), TAKEN, usage))
    assert len(images(tab)) == 25
    assert "and 90,000 smaller" in tab.texts("#images tfoot td")
    assert busy(tab) - before < 10.0
    tab.click("#images input")
    tab.type("no such image")
    assert images(tab) == []
