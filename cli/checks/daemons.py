"""Docker, containerd and Podman: whether they answer, and what they are."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ...oci.errors import InvalidContent, NotFound, RegistryError
from ...oci.wording import plain
from ...publish.access import Access
from ...publish.command import Command
from ...publish.containerd.ctr import DEFAULT_ADDRESS, Ctr
from ...publish.docker.engine import Engine
from ...publish.docker.host import Host, find_host
from .check import Check, ok, warn

TIMEOUT = (0.5, 1.2)  # seconds to connect, and for an answer

_SERVER = re.compile(r"Server:\s+Version:\s+(\S+)")


def docker(environment: Mapping[str, str]) -> Check:
    """Ask the Docker daemon that `docker-daemon:` means what it is."""
    try:
        host = find_host(Access(), environment)
    except (InvalidContent, NotFound, OSError) as error:
        return warn("docker", str(error), "DOCKER_HOST=unix:///path or tcp://host:port")
    asked = bool(environment.get("DOCKER_HOST"))
    if not asked and isinstance(host.address, str) and not os.path.exists(host.address):
        return ok("docker", f"no {host.address}")
    return _asked("docker", host)


def podman(environment: Mapping[str, str]) -> Check:
    """Ask `podman`, by which `podman:` is reached, and its service if that runs."""
    if shutil.which("podman", path=environment.get("PATH", os.defpath)) is None:
        return ok("podman", "not on PATH")
    try:
        with tempfile.TemporaryDirectory(prefix="ocistow-doctor-") as directory:  # a user's podman
            own = {"TMPDIR": directory}  # makes directories there for whatever it is asked
            told = Command(("podman",), "podman", TIMEOUT[1], own).run("--version")
        words = plain(told.decode())
    except (RegistryError, UnicodeDecodeError) as error:
        return warn("podman", str(error), "podman info tells more")
    return ok("podman", words.removeprefix("podman version "))


def containerd(environment: Mapping[str, str]) -> Check:
    """Ask the containerd that `containerd:` means, by `ctr`."""
    address = environment.get("CONTAINERD_ADDRESS") or DEFAULT_ADDRESS
    path = Path(address.removeprefix("unix://"))
    if not environment.get("CONTAINERD_ADDRESS") and not _exists(path):
        return ok("containerd", f"no {path}")
    try:
        Ctr(address, "default", TIMEOUT[0]).check_socket()
        arguments = ("ctr", "--address", str(path), "--connect-timeout", f"{TIMEOUT[0]}s")
        told = Command(arguments, "containerd", TIMEOUT[1]).run("version").decode()
    except (RegistryError, UnicodeDecodeError) as error:
        return warn("containerd", str(error), "see that it runs: systemctl status containerd")
    version = _SERVER.search(told)
    return ok("containerd", f"{version[1] if version else 'answers'} at {path}")


def _asked(name: str, host: Host) -> Check:
    try:
        with Engine(host, TIMEOUT) as engine:
            version = engine.version()
            store = "containerd" if engine.has_containerd_store() else "classic"
            kind = "Podman's service" if engine.is_podman else f"{store} image store"
    except (RegistryError, InvalidContent) as error:
        return warn(name, str(error), "see that it runs, and that you may: docker version")
    return ok(name, f"{version}, {kind}, at {host.url}")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:
        return False  # in a directory of root: nobody else's daemon
