"""Debian 13's Docker in a directory to chroot to, for machines that run something older.

Its packages are unpacked, not installed: that takes ten seconds with the download, against
a minute of debootstrap, and dockerd needs no more.
"""

import os
from pathlib import Path

from ..debian import KEYRING, kept, mirror, step

SUITE = "trixie"

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
    return kept(f"{SUITE}-docker", _make)


def _make(work: Path) -> Path:
    for directory in ("state/lists/partial", "cache/archives/partial"):
        (work / directory).mkdir(parents=True)
    (work / "status").touch()
    (work / "apt.conf").write_text(_CONFIGURATION.format(work=work))
    (work / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror()} {SUITE} main\n")
    environment = {**os.environ, "APT_CONFIG": str(work / "apt.conf")}
    step(["apt-get", "update"], environment)
    step(["apt-get", "install", "--download-only", "--yes", "docker.io"], environment)
    made = work / "root"
    for directory in ("bin", "sbin", "lib", "lib64"):
        (made / "usr" / directory).mkdir(parents=True)
        (made / directory).symlink_to(f"usr/{directory}")
    for directory in ("dev", "etc", "proc", "run", "srv", "sys", "tmp"):
        (made / directory).mkdir()
    for package in sorted((work / "cache" / "archives").glob("*.deb")):
        step(["bash", "-o", "pipefail", "-c", _UNPACK, "-", str(package), str(made)], environment)
    (made / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (made / "etc" / "group").write_text("root:x:0:\ndocker:x:999:\n")
    return made
