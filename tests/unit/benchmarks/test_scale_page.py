"""The page about scale shows what the committed results and the simulation say."""

from pathlib import Path

import pytest

from benchmarks.scenarios.charts import PICTURES, curves, pictures, table, with_table
from benchmarks.scenarios.curves import COPY
from benchmarks.simulation.__main__ import report
from benchmarks.simulation.inputs import Fleet, Measured, Prices, Tier

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "scale.md"
RESULTS = max((ROOT / "benchmarks" / "results").glob("*-curves.json"))
CURVES = list(curves(RESULTS.read_text()))
BUSY = RESULTS.with_name("2026-11-22-curves-busy.json")  # with warm memory, and a copy by dd
COLD = {"add", "publish oci-archive:"}  # of 4 GiB, where memory was not warm


def test_the_curves_are_those_of_the_last_results() -> None:
    assert with_table(PAGE.read_text(), CURVES) == PAGE.read_text()


def test_the_pictures_are_those_of_the_last_results() -> None:
    drawn = dict(pictures(CURVES))
    assert drawn == {file.name: file.read_text() for file in (PAGE.parent / PICTURES).iterdir()}
    assert all(f"{PICTURES}/{name})" in PAGE.read_text() for name in drawn)


def test_no_command_grows_more_than_its_work_without_a_reason() -> None:
    steep = [line for line in table(CURVES) if "more than linear" in line]
    known = {f"| MiB in a layer, 1 to 4,096 | `{command}` " for command in COLD}
    assert [line for line in steep if not line.startswith(tuple(known))] == []


@pytest.mark.parametrize("command", sorted(COLD))
def test_a_layer_of_4_gib_costs_no_command_more_than_it_costs_a_copy(command: str) -> None:
    assert step_of(command) <= step_of(COPY)


def step_of(command: str) -> float:
    """Return by how much processor time a MiB of the largest layer exceeds one of 1 GiB."""
    (curve,) = (
        curve
        for curve in curves(BUSY.read_text())
        if (curve.axis, curve.step, curve.measure) == ("MiB in a layer", command, "cpu")
    )
    *_, (gib, before), (largest, after) = curve.points
    assert (gib, largest) == (1024, 4096)
    return after / largest - before / gib


@pytest.mark.parametrize(
    "part", range(6), ids=["fleet", "limits", "nodes", "hour", "queue", "bill"]
)
def test_the_plan_is_what_the_simulation_says(part: int, said: list[list[str]]) -> None:
    shown = PAGE.read_text().splitlines()
    assert [line for line in said[part] if line not in shown] == []


@pytest.fixture(scope="module")
def said() -> list[list[str]]:
    lines = report(Fleet(), Measured(), Tier(), Prices(), seed=1)
    return [block.split("\n") for block in "\n".join(lines).split("\n\n")]
