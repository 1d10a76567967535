"""`ocistow doctor`: what this machine has of what ocistow can use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import click

from .checks.check import Check, State, fail
from .checks.machine import machine
from .config import Settings
from .exits import FINDINGS
from .options import json_option, pass_settings
from .output import count, document, heading, line, table


@click.command()
@json_option
@pass_settings
def doctor(settings: Settings, as_json: bool) -> int:
    """Look whether this machine has what ocistow needs.

    Everything is tried where that is cheap: a mount of an empty store that is gone at once,
    links and clones of empty files beside the store, a question to each daemon. Nothing of yours
    is changed, and no secret is printed.

    Exits with 4 if something does not work.
    """
    checks = _checks(settings)
    failures = sum(check.state is State.FAIL for check in checks)
    warnings = sum(check.state is State.WARN for check in checks)
    if as_json:
        document(
            {
                "failures": failures,
                "warnings": warnings,
                "checks": [
                    {
                        "name": check.name,
                        "state": str(check.state),
                        "found": check.found,
                        "advice": check.advice,
                    }
                    for check in checks
                ],
            }
        )
    else:
        _print(checks)
        line(f"{count(failures, 'failure')}, {count(warnings, 'warning')}")
    return FINDINGS if failures else 0


def _checks(settings: Settings) -> Sequence[Check]:
    """Return all, in the order of the table. What waits for others waits at the same time."""
    try:
        from .checks import daemons
        from .checks.disk import disk
        from .checks.mounting import mounting, namespaces
        from .checks.registries import registries
    except ImportError as error:
        return [*machine(), fail("the rest", f"not tried: {error}", "see libraries and sqlite")]

    private = namespaces()  # forks, so there are no threads yet
    with ThreadPoolExecutor() as threads:

        def begin(look: Callable[[], Iterable[Check]]) -> Callable[[], list[Check]]:
            return threads.submit(lambda: [*look()]).result

        later = [
            begin(lambda: [daemons.docker(os.environ)]),
            begin(lambda: [daemons.containerd(os.environ)]),
            begin(lambda: [daemons.podman(os.environ)]),
        ]
        mounts = begin(mounting)
        here = [*machine()]
        beside = [*disk(settings.store), *registries(os.environ)]
        return [
            *here,
            *mounts(),
            private,
            *beside,
            *(check for result in later for check in result()),
        ]


def _print(checks: Sequence[Check]) -> None:
    table(["CHECK", "STATE", "FOUND"], ([c.name, c.state, c.found] for c in checks), right=[])
    for state in (State.FAIL, State.WARN):
        found = [check for check in checks if check.state is state]
        if found:
            line("")
            line(heading("TO BE DONE" if state is State.FAIL else "COULD BE BETTER"))
        for check in found:
            line(f"{check.name}: {check.advice}")
    line("")
