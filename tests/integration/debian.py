"""What tests make of Debian's packages, once for all runs."""

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from .conftest import program

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

_MIRROR = "http://deb.debian.org/debian"
_TIMEOUT = 300.0  # seconds for each step


def kept(name: str, make: Callable[[Path], Path]) -> Path:
    """Return the directory of this name that survives between runs; nobody writes to it.

    `make` is given an empty directory the first time, and returns the one below it to be kept.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    made = Path(cache) / "ocistow-tests" / name
    made.parent.mkdir(parents=True, exist_ok=True)
    with made.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            with tempfile.TemporaryDirectory(dir=made.parent) as work:
                make(Path(work)).rename(made)
    return made


def mirror() -> str:
    """Return where this machine's own packages come from."""
    form = ["--format", "$(SITE)", "Created-By: Packages", "Origin: Debian", "Component: main"]
    sites = step(["apt-get", "indextargets", *form], dict(os.environ)).split()
    return next((site for site in sites if site.endswith("/debian")), _MIRROR)


def step(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """Run a program; without a network the test is skipped, which CI takes for a failure."""
    try:
        done = subprocess.run(
            [program(command[0]), *command[1:]],
            check=True,
            capture_output=True,
            text=True,
            env=environment,
            timeout=_TIMEOUT,
        )
    except subprocess.CalledProcessError as error:
        pytest.skip(f"{command[0]}: {(error.stderr or error.stdout)[-500:]}")
    return done.stdout
