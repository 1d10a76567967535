"""Docker 26 of Debian 13, with either image store, and 20.10 of Debian 12."""

import json
import os
import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from ..conftest import Dockerd, program, running
from . import trixie

# All mounts are in a namespace of the daemon's own, and end with it.
CHROOT = """
set -eu
root=$1 service=$2
shift 2
mount --bind "$root" "$root"  # dockerd looks for the mount that it lives on
mount --bind "$service" "$root/srv"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
mount -t proc proc "$root/proc"
exec env -i PATH=/usr/sbin:/usr/bin chroot "$root" "$@"
"""


@contextmanager
def trixie_dockerd(
    service: Path, arguments: Sequence[str] = (), *, snapshotter: bool = False
) -> Generator[Dockerd]:
    """Run Docker 26 for the block; `service` is /srv in its root."""
    if os.geteuid() != 0:
        pytest.skip("dockerd needs root")
    features = {"features": {"containerd-snapshotter": snapshotter}}
    (service / "config.json").write_text(json.dumps(features))
    command = [
        program("unshare"),
        *("--mount", "--propagation", "private"),
        *("sh", "-c", CHROOT, "-", str(trixie.root()), str(service)),
        "/usr/sbin/dockerd",
        "--config-file=/srv/config.json",
        "--data-root=/srv/data",
        "--exec-root=/srv/exec",
        "--pidfile=/srv/pid",
        "--host=unix:///srv/socket",
        "--bridge=none",
        "--iptables=false",
        "--ip6tables=false",
        *arguments,
    ]
    try:
        with running(command) as log:
            log.wait_for(r"API listen on /srv/socket")
            yield Dockerd(f"unix://{service / 'socket'}")
    finally:
        shutil.rmtree(service / "data", ignore_errors=True)


@pytest.fixture(scope="session")
def dockerd_26(tmp_path_factory: pytest.TempPathFactory) -> Generator[Dockerd]:
    with trixie_dockerd(tmp_path_factory.mktemp("dockerd")) as dockerd:
        yield dockerd


@pytest.fixture(scope="session")
def dockerd_26_containerd(tmp_path_factory: pytest.TempPathFactory) -> Generator[Dockerd]:
    with trixie_dockerd(tmp_path_factory.mktemp("dockerd"), snapshotter=True) as dockerd:
        yield dockerd


@pytest.fixture(params=["dockerd", "dockerd_26", "dockerd_26_containerd"])
def each(request: pytest.FixtureRequest) -> Dockerd:
    """Each daemon in turn."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Dockerd)
    return found
