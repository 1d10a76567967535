"""The table of the micro benchmarks."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
QUICK = ("--benchmark-max-time=0.001", "--benchmark-min-rounds=1")


def test_what_ocistow_takes_stands_beside_the_native_calls() -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--quiet", *QUICK]
    done = subprocess.run(
        [*command, "benchmarks/micro/test_graph.py"],
        cwd=ROOT,
        env={key: text for key, text in os.environ.items() if not key.startswith("PYTEST_")},
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    lines = done.stdout.splitlines()
    start = next((at for at, line in enumerate(lines) if line.startswith("OPERATION")), len(lines))
    header, first, second = lines[start : start + 3]
    assert done.returncode == 0
    for line, operation in ((first, "walk an image"), (second, "walk an index")):
        assert line.startswith(operation)
        at = header.index("COMPARED WITH")
        assert line[at:].split()[0] == "json.loads"
        theirs, unit, ratio = line[at:].split()[1:]
        ours, our_unit = line[:at].split()[-2:]
        factor = {"µs": 1.0, "ms": 1e3, "s": 1e6}
        expected = float(theirs) * factor[unit] / (float(ours) * factor[our_unit])
        assert abs(float(ratio) / expected - 1) < 0.07  # of two digits
