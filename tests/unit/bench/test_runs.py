"""Numbers of a run: how contestants compare, and how two runs do."""

import json
from pathlib import Path

import pytest

from ocistow.bench.machine import Machine
from ocistow.bench.measure import Goal, Ratio, Result, compare
from ocistow.bench.page import page
from ocistow.bench.processes import Sample
from ocistow.bench.report import Report, document, shown, table
from ocistow.bench.rows import rows_of
from ocistow.bench.runs import read_run
from ocistow.oci.errors import InvalidContent

MACHINE = Machine("a processor", 2, 24 << 30, "6.1", "ext4", "", {"ocistow": "1", "python": "3.11"})


def samples(*seconds: float) -> list[Sample]:
    return [Sample(number, 0, 0) for number in seconds]


def results(ours: float, scenario: str = "image") -> list[Result]:
    times = {"ocistow": samples(ours, ours + 1, ours + 2), "layout": samples(8, 9, 30)}
    return [
        Result(scenario, "first build", times, goal=Goal("layout", 2)),
        *(Result(scenario, f"first build: {part}", times) for part in ("in", "export", "out")),
    ]


def written(path: Path, ours: float, **other: object) -> Path:
    report = Report("2026-01-01T00:00:00+00:00", 3, False, MACHINE, results(ours), {})
    path.write_text(json.dumps({**json.loads(document(report)), **other}))
    return path


def test_what_takes_long_is_compared_in_the_rounds_that_it_has() -> None:
    found = {"ours": samples(4), "small": samples(1, 9)}
    assert Result("curve", "step", found).ratio("small") == Ratio(0.25, 0.25, 0.25)


def test_a_ratio_is_that_of_one_round() -> None:
    ratio = results(4)[0].ratio("layout")
    assert (ratio.median, ratio.low, ratio.high) == (2.0, 1.8, 5.0)
    assert "| 2.00 [1.80 to 5.00] | 2.00, met |" in list(table(results(4)))[2]


def test_contestants_take_turns_at_being_first() -> None:
    order: list[str] = []

    def contestant(name: str) -> dict[str, Sample]:
        order.append(name)
        return {"step": Sample(1, 0, 0)} | ({"more": Sample(2, 0, 0)} if name == "a" else {})

    names = {name: (lambda name=name: contestant(name)) for name in "ab"}
    step, more = compare("s", names, 3)
    assert "".join(order) == "abbaab"
    assert {name: len(found) for name, found in step.samples.items()} == {"a": 3, "b": 3}
    assert list(more.samples) == ["a"]


def test_one_after_the_other_is_a_sum_and_the_largest_peak() -> None:
    assert Sample(1, 2, 3, 4, 5) + Sample(1, 1, 9, 1, 1) == Sample(2, 3, 9, 5, 6)


def test_two_runs_compare(tmp_path: Path) -> None:
    old, new = written(tmp_path / "old", 4), written(tmp_path / "new", 1)
    ours, theirs, *_ = read_run(new).since(read_run(old))
    assert ours.key == ("image", "first build", "ocistow")
    assert (ours.old, ours.new, ours.ratio) == ((5, 4, 6), (2, 1, 3), 2.5)
    assert (ours.is_clear, theirs.is_clear) == (True, False)


def test_what_differs_between_two_runs_besides_the_code_is_known(tmp_path: Path) -> None:
    old = written(tmp_path / "old", 4, what="oci:a")
    machine = {
        "cores": 8,
        "memory": 16 << 30,
        "versions": {"python": "3.12", "skopeo": "1.9", "ocistow": "9"},
    }
    new = written(tmp_path / "new", 4, what="oci:b", quick=True, machine=machine)
    assert read_run(old).unlike(read_run(old)) == {}
    found = read_run(new).unlike(read_run(old))
    assert found["measured"] == ("oci:a", "oci:b")
    assert found["quick"] == ("false", "true")
    assert found["cores"] == ("2", "8")
    assert found["memory"] == ("24576 MiB", "16384 MiB")
    assert found["python"] == ("3.11", "3.12")
    assert found.keys().isdisjoint({"skopeo", "ocistow"})


@pytest.mark.parametrize("other", [{"schemaVersion": 2}, {"results": [{"unit": 3}]}])
def test_what_is_no_run_is_refused(tmp_path: Path, other: dict[str, object]) -> None:
    run = written(tmp_path / "run", 4, **other)
    with pytest.raises(InvalidContent):
        read_run(run)


def test_sizes_and_times_are_for_reading() -> None:
    assert [shown(seconds, "s") for seconds in (0.0123, 12.3456)] == ["12 ms", "12.35 s"]
    sizes = [shown(size, "B") for size in (0, 99 << 10, 3 << 20, 1234 << 20)]
    assert sizes == ["0 MiB", "99 KiB", "3.0 MiB", "1234 MiB"]


def test_a_page_shows_what_it_is_given_as_text() -> None:
    hostile = "</style><script>alert(1)</script>"
    skipped = {"registry": f"it said {hostile}"}
    report = Report("2026", 3, False, MACHINE, results(4, hostile), skipped, hostile)
    found = page(report)
    assert "<script" not in found
    assert found.count('class="s3"') > 2
    assert "left out: it said &lt;/style&gt;" in found


def test_a_page_marks_what_rounds_agree_on() -> None:
    times = {"ocistow": samples(4, 4), "daemon": samples(1, 2), "layout": samples(2, 8)}
    found = page(Report("2026-01-01T00:00:00", 2, False, MACHINE, [Result("a", "b", times)], {}))
    assert '<b class="worse">0.38</b>' in found
    assert '<b class="mixed">~1.25</b>' in found


def test_what_is_known_of_a_build_follows_it() -> None:
    found = [
        Result("java", "first build: in", {}),
        Result("java", "first build", {}),
        Result("java, moved", "first build", {}),
        Result("java", "to a registry", {}),
        Result("java", "rebase", {}),
        Result("image", "rebase", {}),
    ]
    assert [(row.build, row.part) for row in rows_of(found)] == [
        ("java, first build", ""),
        ("java, first build", "in"),
        ("java, first build", "moved"),
        ("java, rebase", ""),
        ("java, to a registry", ""),
        ("rebase", ""),
    ]
