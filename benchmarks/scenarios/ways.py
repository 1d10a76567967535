"""Ways of a build into a daemon and a registry, as the layout format's draft has them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ocistow.bench.apps import APPS
from ocistow.bench.builds import made_builds
from ocistow.bench.comparison import Contest
from ocistow.bench.daemon import used
from ocistow.bench.measure import Result
from ocistow.bench.servers import docker_daemon, require
from ocistow.bench.ways import FULL, UNCOMPRESSED, WAYS

from .bench import GIB, Bench, say
from .exporting import LIFECYCLE

_DISK = 24 * GIB  # bytes, sparse
_SPACE = "ocistow-bench.invalid/ways"


def run(bench: Bench) -> Iterator[Result]:
    """Build the applications in all ways; fails where one makes another image than the others."""
    require("docker", "docker-registry", "skopeo")
    real = os.environ.get(LIFECYCLE)
    builds = made_builds(bench.fresh("builds"), bench.names, quick=bench.quick)
    with docker_daemon(bench.empty("docker"), _DISK) as host, used(host, _SPACE) as daemon:
        for app, build in builds.items():
            is_first = app == APPS[0]
            is_whole = is_first and not bench.quick
            contest = Contest(
                bench.empty("ways"),
                build,
                daemon,
                [way for way in WAYS if is_whole or way not in (FULL, UNCOMPRESSED)],
                # what is done of the first alone differs by size elsewhere, and takes minutes
                Path(real) if real and is_first else None,
                has_registry=is_first,
                watch=say,
            )
            yield from contest.results(f"ways, {app}", bench.rounds)
