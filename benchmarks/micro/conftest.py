"""One table of all that was measured: ocistow, and the native calls that do the same.

Every benchmark has a parameter `way`: "ocistow", or what it is compared with. With
`--benchmark-verbose`, pytest-benchmark prints a table for each group besides.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence

import pytest

OURS = "ocistow"

Medians = dict[str, dict[str, float]]  # seconds, by group and way

_MEDIANS = pytest.StashKey[Medians]()
_HEADER = ("OPERATION", "OCISTOW", "COMPARED WITH", "", "TIMES AS FAST")
_RIGHT = (1, 3, 4)  # columns
_UNITS = {"s": 1, "ms": 1e3, "µs": 1e6}


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_MEDIANS] = {}
    config.option.benchmark_quiet = True


@pytest.fixture(autouse=True)
def measured(request: pytest.FixtureRequest) -> Generator[None]:
    benchmark = request.getfixturevalue("benchmark")  # half of its types are unknown
    yield
    if benchmark.stats is not None:  # neither failed nor switched off
        way = request.node.callspec.params["way"]
        medians = request.config.stash[_MEDIANS].setdefault(benchmark.group, {})
        medians[way] = benchmark.stats.stats.median


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    medians = config.stash[_MEDIANS]
    if medians:
        terminalreporter.section("medians")
        for line in table(medians):
            terminalreporter.write_line(line)


def table(medians: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    rows = [_HEADER, *(row for group, ways in medians.items() for row in rows_of(group, ways))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = enumerate(zip(row, widths, strict=True))
        padded = [c.rjust(w) if place in _RIGHT else c.ljust(w) for place, (c, w) in cells]
        yield "  ".join(padded).rstrip()


def rows_of(group: str, ways: Mapping[str, float]) -> Iterator[Sequence[str]]:
    ours = ways.get(OURS)
    first = (group, seconds(ours) if ours else "")
    for way, theirs in ways.items():
        if way != OURS:
            yield *first, way, seconds(theirs), f"{theirs / ours:.2g}" if ours else ""
            first = ("", "")
    if len(ways) == 1 and ours:
        yield *first, "", "", ""


def seconds(value: float) -> str:
    """Return a time with three digits.

    >>> seconds(0.00002345), seconds(0.2345), seconds(2)
    ('23.4 µs', '234 ms', '2.00 s')
    """
    large = ((unit, value * factor) for unit, factor in _UNITS.items() if value * factor >= 1)
    unit, number = next(large, ("µs", value * 1e6))
    return f"{number:.{max(0, 3 - len(str(int(number))))}f} {unit}"
