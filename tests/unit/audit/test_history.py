import json
from collections.abc import Generator
from pathlib import Path

import pytest

from ocistow.audit.history import (
    ALL,
    DAYS,
    FILE,
    OLDEST,
    Run,
    members,
    record,
    run_of,
    runs,
    sparkline,
    thinned,
)
from ocistow.audit.usage import usage
from ocistow.store.store import Store
from ocistow.testing.disk import FailingDisk
from ocistow.testing.forgetful import ForgetfulDisk

DAY = 86_400


def run(time: int) -> Run:
    return Run(time, 2, 30, 20, 25, 1, 40, {"e.x/a": 20})


@pytest.fixture
def store(tmp_path: Path) -> Generator[Store]:
    with Store.create(tmp_path / "store") as store:
        yield store


def test_what_is_recorded_can_be_read_again(store: Store) -> None:
    assert runs(store) == []
    first = run_of(usage(store), 1_000.5)
    assert (first.time, first.images, first.repositories) == (1000, 0, {})
    for one in (first, run(2000)):
        record(store, one)
    assert runs(store) == [first, run(2000)]


def test_lines_that_mean_nothing_are_left_out(store: Store) -> None:
    lines = [b"", b"{", b"[]", b'{"time": -1}', json.dumps(members(run(5))).encode()]
    (store.path / FILE).write_bytes(b"\n".join(lines))
    assert runs(store) == [run(5)]


def test_a_symbolic_link_is_not_followed(store: Store, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("{}")
    (store.path / FILE).symlink_to(tmp_path / "secret")
    with pytest.raises(Exception, match="not a regular file"):
        runs(store)


def test_years_of_runs_stay_small() -> None:
    found: list[Run] = []
    for hour in range(0, 5 * 365 * 24, 6):
        found.append(run(hour * 3600))
        if len(found) > 3 * ALL:
            found = thinned(found)
    found = thinned(found)
    assert len(found) <= ALL + DAYS + OLDEST + 1
    assert found == sorted(found, key=lambda one: one.time) == thinned(found)
    assert found[0].time < 60 * DAY
    newest = [one.time for one in found[-ALL:]]
    assert newest == list(range(newest[0], newest[-1] + 1, 6 * 3600))


def test_a_crash_loses_no_run_but_the_last(tmp_path: Path) -> None:
    with Store.create(tmp_path / "store") as store:
        record(store, run(1))
        disk = ForgetfulDisk(tmp_path / "store")
        record(store, run(2), disk)
    last = len(disk.calls) - 1
    for call, state in disk.states(tmp_path / "after"):
        with Store.open(state) as store:
            found = runs(store)
            assert found in ([run(1)], [run(1), run(2)])
            if call == last:
                assert found == [run(1), run(2)]
            record(store, run(3))
            assert runs(store)[-1] == run(3)


def test_a_call_that_fails_changes_nothing(tmp_path: Path) -> None:
    with Store.create(tmp_path / "store") as store:
        record(store, run(1))
        failures = 0
        for at in range(20):
            before = runs(store)
            try:
                record(store, run(at + 2), FailingDisk(at))
            except OSError:
                failures += 1
                assert runs(store) in (before, [*before, run(at + 2)])
        assert failures > 3
        assert {p.name for p in store.path.iterdir()} >= {FILE}
        assert not [p for p in store.path.iterdir() if p.name.startswith(".")]


def test_bars_go_from_nothing_to_the_most() -> None:
    assert sparkline([]) == ""
    assert sparkline([0, 0]) == "▁▁"
    assert sparkline([0, 50, 100]) == "▁▄█"
    assert len(sparkline(range(100))) == 40
