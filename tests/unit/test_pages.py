"""The pages lead where they say, and the README leads to all of them."""

import json
import re
import runpy
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NotRequired, TypedDict, cast

import pytest
import yaml

from ocistow.bench.report import shown

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
_TRACKED = subprocess.run(["git", "ls-files", "-z", "*.md"], cwd=ROOT, capture_output=True)
PAGES = [ROOT / name for name in _TRACKED.stdout.decode().split("\0") if name] or [
    ROOT / "README.md",
    *DOCS.rglob("*.md"),  # not a clone
]
DECISIONS = sorted((DOCS / "adr").glob("*.md"))

_CODE = re.compile(r"^(```+).*?^\1$|`[^`\n]*`", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(\s*(?!https?://)([^)#\s]*)(?:#([^)\s]+))?\s*\)")
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


class Mount(TypedDict):
    name: str
    mountPropagation: NotRequired[str]


class Container(TypedDict):
    securityContext: dict[str, object]
    volumeMounts: list[Mount]


class Spec(TypedDict):
    volumes: list[dict[str, object]]
    initContainers: list[Container]
    containers: list[Container]


class Pod(TypedDict):
    """What of a manifest of Kubernetes concerns its mounts."""

    kind: str
    spec: Spec


class Contestant(TypedDict):
    """What of a benchmark's run concerns one that took part; `ratio` is missing from ours."""

    median: float
    ratio: NotRequired[dict[str, float]]


class Measured(TypedDict):
    scenario: str
    step: str
    unit: str
    ours: str
    contestants: dict[str, Contestant]


def links(page: Path) -> Iterator[tuple[Path, str | None]]:
    """Yield where a page leads: the file, and the anchor in it."""
    for target, anchor in _LINK.findall(_CODE.sub("", page.read_text())):
        yield (page.parent / target).resolve() if target else page, anchor or None


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    text = re.sub(r"^(```+).*?^\1$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in _HEADING.findall(text)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target, anchor in links(page):
        assert target.exists(), f"{target} is not there"
        assert anchor is None or anchor in anchors(target), f"{target.name} has no #{anchor}"


def test_the_readme_leads_to_every_page() -> None:
    known = {target for target, _ in links(ROOT / "README.md")}
    assert set(DOCS.glob("*.md")) <= known


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem[:4])
def test_a_decision_is_called_by_the_number_of_its_file(page: Path) -> None:
    assert page.read_text().startswith(f"# {int(page.name[:4])}. ")


def test_no_two_decisions_share_a_number() -> None:
    numbers = [page.name[:4] for page in DECISIONS]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize(
    ("script", "page"), [("headline", "README.md"), ("draft", "docs/bench.md")]
)
def test_the_numbers_of_a_page_are_those_of_committed_runs(script: str, page: str) -> None:
    text = (ROOT / page).read_text()
    assert runpy.run_path(str(ROOT / "scripts" / f"{script}.py"))["written"](text) == text


def test_every_row_of_the_benchmarks_is_in_a_committed_run() -> None:
    page = ROOT / "benchmarks" / "README.md"
    text = page.read_text()
    measured = {
        row
        for run in re.findall(r"\((results/[^)]+)\)", text)
        for result in cast("list[Measured]", json.loads((page.parent / run).read_text())["results"])
        for row in shown_rows(result)
    }
    rows = re.findall(r"^(\| .* \| [\d.]+ \[[\d.]+ to [\d.]+\])", text, re.MULTILINE)
    assert len(rows) > 150
    assert [row for row in rows if row not in measured] == []


def shown_rows(result: Measured) -> Iterator[str]:
    """Yield the lines of a table about one measurement, without its goal."""
    unit, ours, contestants = result["unit"], result["ours"], result["contestants"]
    step = f"| {result['scenario']} | {result['step']} "
    for name, found in contestants.items():
        if "ratio" in found:
            ratio = found["ratio"]
            yield (
                f"{step}| {ours} | {shown(contestants[ours]['median'], unit)} "
                f"| {name} | {shown(found['median'], unit)} "
                f"| {ratio['median']:.2f} [{ratio['low']:.2f} to {ratio['high']:.2f}]"
            )


def test_pods_may_mount_what_they_mount() -> None:
    """Kubernetes refuses pods whose propagation, volumes or security contexts are otherwise."""
    manifests = [
        cast("Pod", yaml.safe_load(block))
        for page in PAGES
        for block in re.findall(r"^```yaml\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    ]
    assert [manifest["kind"] for manifest in manifests] == ["Pod"]
    for spec in (manifest["spec"] for manifest in manifests):
        volumes = {volume["name"] for volume in spec["volumes"]}
        for container in (*spec["initContainers"], *spec["containers"]):
            context = container["securityContext"]
            ways = {mount.get("mountPropagation") for mount in container["volumeMounts"]}
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert ways <= {None, "None", "HostToContainer", "Bidirectional"}
            if "Bidirectional" in ways:
                assert context["privileged"]
                assert context["runAsUser"] == 0  # the user of our image cannot mount
            else:
                assert "privileged" not in context
