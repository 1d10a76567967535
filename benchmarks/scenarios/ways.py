"""Four ways of a build into a daemon and a registry, as the layout format's draft has them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ocistow.bench.apps import APPS
from ocistow.bench.builds import made_builds
from ocistow.bench.comparison import STEPS, Contest
from ocistow.bench.daemon import used
from ocistow.bench.measure import Result
from ocistow.bench.servers import docker_daemon, require
from ocistow.bench.ways import WAYS

from .bench import GIB, Bench, say
from .exporting import LIFECYCLE

_DISK = 24 * GIB  # bytes, sparse
_SPACE = "ocistow-bench.invalid/ways"


def run(bench: Bench) -> Iterator[Result]:
    """Build the applications in all ways; fails where one makes another image than the others."""
    require("docker", "docker-registry", "skopeo")
    real = os.environ.get(LIFECYCLE)
    apps = APPS[:1] if bench.quick else APPS
    builds = made_builds(bench.fresh("builds"), apps, quick=bench.quick)
    with docker_daemon(bench.empty("docker"), _DISK) as host, used(host, _SPACE) as daemon:
        for app, build in builds.items():
            contest = Contest(
                bench.empty("ways"),
                build,
                daemon,
                list(WAYS),
                Path(real) if real else None,
                # the others' differ by size alone, and pushing takes as long as all else
                has_registry=app == APPS[0],
                steps=STEPS if app == APPS[0] else STEPS[:2],
                watch=say,
            )
            yield from contest.results(f"ways, {app}", 1 if bench.quick else bench.rounds)
