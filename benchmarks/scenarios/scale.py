"""A store of any size, for whoever wants to see what grows with it.

python -m benchmarks.scenarios.scale DIR --names 100000 --blobs 300000
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from ocistow.testing.population import populate


class _Options(argparse.Namespace):
    directory: Path
    names: int
    blobs: int | None


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.scenarios.scale", description=__doc__)
    parser.add_argument("directory", type=Path, help="the store; must be absent or empty")
    parser.add_argument("--names", type=int, default=100_000)
    parser.add_argument("--blobs", type=int, help="[default: three a name]")
    options = parser.parse_args(namespace=_Options())
    start = time.monotonic()
    made = populate(
        options.directory, names=options.names, blobs=options.blobs or 3 * options.names
    )
    sys.stdout.write(
        f"{options.directory}: {len(made.names)} names, {made.sparse} of them sparse, "
        f"{made.blobs} blobs, {made.garbage} of them garbage, "
        f"{time.monotonic() - start:.0f} s\n"
    )


if __name__ == "__main__":
    main()
