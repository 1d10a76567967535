"""Debian 13's Docker in a directory to chroot to, for machines that run something older.

Its packages are unpacked, not installed: that takes ten seconds with the download, against
a minute of debootstrap, and dockerd needs no more.
"""

import fcntl
import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from ..conftest import program

SUITE = "trixie"
MIRROR = "http://deb.debian.org/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
TIMEOUT = 300.0  # seconds for each step

_CONFIGURATION = """
Dir::State "{work}/state";
Dir::State::status "{work}/status";
Dir::Cache "{work}/cache";
Dir::Etc::sourcelist "{work}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Acquire::Languages "none";
Acquire::Retries "3";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
"""

_UNPACK = 'dpkg-deb --fsys-tarfile "$1" | tar --extract --directory="$2" --exclude=./usr/share'


def root() -> Path:
    """Return the directory; it is made once for all runs, and nobody writes to it."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    made = Path(cache) / "ocistow-tests" / f"{SUITE}-docker"
    made.parent.mkdir(parents=True, exist_ok=True)
    with made.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            with tempfile.TemporaryDirectory(dir=made.parent) as work:
                _make(Path(work)).rename(made)
    return made


def _make(work: Path) -> Path:
    for directory in ("state/lists/partial", "cache/archives/partial"):
        (work / directory).mkdir(parents=True)
    (work / "status").touch()
    (work / "apt.conf").write_text(_CONFIGURATION.format(work=work))
    (work / "sources.list").write_text(f"deb [signed-by={KEYRING}] {_mirror()} {SUITE} main\n")
    environment = {**os.environ, "APT_CONFIG": str(work / "apt.conf")}
    _run(["apt-get", "update"], environment)
    _run(["apt-get", "install", "--download-only", "--yes", "docker.io"], environment)
    made = work / "root"
    for directory in ("bin", "sbin", "lib", "lib64"):
        (made / "usr" / directory).mkdir(parents=True)
        (made / directory).symlink_to(f"usr/{directory}")
    for directory in ("dev", "etc", "proc", "run", "srv", "sys", "tmp"):
        (made / directory).mkdir()
    for package in sorted((work / "cache" / "archives").glob("*.deb")):
        unpack = (
            'dpkg-deb --fsys-tarfile "$1" | tar --extract --directory="$2" --exclude=./usr/share'
        )
        _run(["bash", "-o", "pipefail", "-c", unpack, "-", str(package), str(made)], environment)
    (made / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (made / "etc" / "group").write_text("root:x:0:\ndocker:x:999:\n")
    return made


def _mirror() -> str:
    """Return where this machine's own packages come from."""
    form = ["--format", "$(SITE)", "Created-By: Packages", "Origin: Debian", "Component: main"]
    sites = _run(["apt-get", "indextargets", *form], dict(os.environ)).split()
    return next((site for site in sites if site.endswith("/debian")), MIRROR)


def _run(command: list[str], environment: dict[str, str]) -> str:
    """Run a step; without a network the test is skipped, which CI takes for a failure."""
    command[0] = program(command[0])
    try:
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, env=environment, timeout=TIMEOUT
        )
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no Debian {SUITE}: {error.stderr[-500:]}")
    return done.stdout
