import base64
import hashlib
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from ocistow.audit.daemon import Account, Comparison, Held, Row
from ocistow.audit.page import Facts, page
from ocistow.audit.potential import Level, Potential
from ocistow.audit.tables import shown
from ocistow.cli.output import human
from ocistow.oci.digest import Digest
from ocistow.testing.costs import layers_of, names, runs_of, usage_of

TAKEN = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
HOSTILE = "</script><!--<img src=x onerror=alert(1)>&quot;\"'\u202e\x1b[2J"


def facts(count: int = 40, **more: Any) -> Facts:
    return Facts(Path("/srv/store"), TAKEN, usage_of(names(count)), **more)


def everything(text: str = "RUN make") -> dict[str, Any]:
    usage = usage_of(names(40))
    held = Held(Digest("sha256", "1" * 64), (text,), frozenset(), 900_000_000, 300_000_000)
    level = Level(900_000, 300_000)
    return {
        "layers": layers_of(1, text),
        "runs": runs_of(9),
        "comparison": Comparison(
            Account(f"docker daemon at {text}", (held,), 900_000_000),
            (Row(usage.layouts[0], (held,)),),
            usage.layouts[0].on_disk,
        ),
        "potential": Potential(
            3,
            400_000,
            1_000_000,
            70,
            990_000,
            level,
            level,
            0.01,
            0,
            (("sha256:1", text),),
            1.0,
        ),
    }


class Read(HTMLParser):
    """The elements of a page, and the text of some."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "input"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts.setdefault(self._open[-1], []).append(data)


def data_of(html: str) -> Any:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert match is not None
    return json.loads(match[1])


def test_its_numbers_are_those_of_the_usage() -> None:
    known = facts()
    data = data_of(page(known, human))
    rows = data["tables"]["images"]["rows"]
    assert {row[0]: row[1:] for row in rows} == {
        shown(c): [c.apparent, c.on_disk, c.shared, c.exclusive, c.amortised, c.reclaimable]
        for c in known.usage.layouts
    }
    assert [row[5] for row in rows] == sorted((row[5] for row in rows), reverse=True)
    assert data["tree"][1] == known.usage.everything


def test_it_says_the_same_without_scripts() -> None:
    read = Read(page(facts(), human))
    cells = read.texts["td"]
    known = facts().usage
    largest = max(known.layouts, key=lambda cost: cost.amortised)
    assert shown(largest) in cells
    assert human(largest.amortised) in cells
    assert human(known.total.on_disk) in read.texts["b"]
    assert "and 15 more, which scripts would show" in cells
    assert any(tag == "rect" for tag, _ in read.elements)


def test_nothing_is_loaded_and_nothing_else_runs() -> None:
    html = page(facts(**everything()), human)
    read = Read(html)
    [policy] = [
        attributes["content"]
        for tag, attributes in read.elements
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    for tag in ("style", "script"):
        [text] = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    for _, attributes in read.elements:
        assert not attributes.keys() & {"src", "href", "style", "srcset", "action"}
        assert not any(name.startswith("on") for name in attributes)
    assert "://" not in re.sub(r"unix://|<!doctype html>", "", html)


@pytest.mark.parametrize("text", [HOSTILE, "<script>alert(1)</script>", "a\0b\nc\ud800"])
def test_no_text_of_the_store_becomes_markup(text: str) -> None:
    text = text.encode(errors="replace").decode()
    calm = [tag for tag, _ in Read(page(facts(**everything()), human)).elements]
    paths = [*names(39), PurePosixPath("e.x", text.replace("/", "|").replace("\0", ""), "1")]
    usage = usage_of(sorted(paths))
    tags = []
    html = page(Facts(Path(f"/srv/{text}"), TAKEN, usage, **everything(text)), human)
    tags = [tag for tag, _ in Read(html).elements]
    assert {"img"}.isdisjoint(tags)
    assert tags.count("script") == calm.count("script") == 2
    assert tags.count("td") == calm.count("td")
    assert "\u202e" not in html
    assert "\x1b" not in html
    assert data_of(html)["tables"]["layers"]["rows"][0][3]


def test_what_was_not_asked_for_is_not_there() -> None:
    html = page(facts(), human)
    for name in ("growth", "daemon", "saving", "layers"):
        assert f'id="{name}"' not in html
    html = page(facts(**everything()), human)
    for name in ("growth", "daemon", "saving", "layers"):
        assert f'id="{name}"' in html


def test_an_account_that_cannot_be_right_is_shown_as_it_is() -> None:
    known = everything()
    [held] = known["comparison"].account.images
    wrong = replace(held, shared=held.size + 5_000_000)
    row = replace(known["comparison"].rows[0], images=(wrong,))
    html = page(facts(comparison=replace(known["comparison"], rows=(row,))), human)
    assert "-5.0 MB" in Read(html).texts["td"]


def test_an_empty_store_has_a_page() -> None:
    usage = usage_of([])
    html = page(Facts(Path("/srv/store"), TAKEN, usage), human)
    assert "on disk, for 0 images" in html
    assert data_of(html)["tables"]["images"]["rows"] == []


def test_one_run_is_no_growth_and_very_many_are_thinned() -> None:
    assert 'id="growth"' not in page(facts(runs=runs_of(1)), human)
    html = page(facts(runs=runs_of(20_000, first=0)), human)
    assert 400 < html.count("<circle") <= 2 * 402
    assert 'id="growth"' in page(facts(runs=runs_of(1) * 2), human)
    never = [replace(run, time=run.time + (1 << 62)) for run in runs_of(2)]
    assert "9999-12-31" in page(facts(runs=never), human)


def test_what_is_beside_images_is_shown_with_all_of_them_only() -> None:
    some = replace(facts().usage, layouts=facts().usage.layouts[:7])
    html = page(Facts(Path("/srv/store"), TAKEN, some), human)
    assert "the whole store" not in html
    assert data_of(html)["tree"][:2] == ["all images", sum(cost.amortised for cost in some.layouts)]
    assert "the whole store" in page(facts(), human)


def test_a_hundred_thousand_images_make_a_page_of_bounded_size() -> None:
    usage = usage_of(names(100_000))
    layers = layers_of(300_000, "RUN " + "x" * 1000)
    html = page(Facts(Path("/srv/store"), TAKEN, usage, layers=layers), human)
    assert len(html.encode()) < 5_000_000
    assert "and 90,000 smaller" in html
    assert "and 295,000 smaller" in html
    data = data_of(html)
    rows = data["tables"]["images"]["rows"]
    assert len(rows) == 10_000
    assert data["tree"][1] == usage.everything
