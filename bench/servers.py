"""Mounts, registries and daemons that live as long as a block."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..fusefs.mount import READ_AHEAD
from ..fusefs.system.table import is_mounted
from .processes import ENVIRONMENT, OCISTOW, uninterrupted

START = 60.0  # seconds
_POLL = 0.01


class Missing(Exception):
    """What a scenario needs and this machine lacks."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted store and the process that serves it."""

    path: Path
    pid: int


def require(*programs: str) -> None:
    """Return if all programs are installed.

    Raises:
        Missing: one is not.
    """
    for program in programs:
        if shutil.which(program, path=ENVIRONMENT["PATH"]) is None:
            raise Missing(f"{program} is not installed")


@contextmanager
def mounted(store: Path, *options: str) -> Generator[Mount]:
    """Mount a store, which is made if absent, beside itself."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise Missing("/dev/fuse cannot be opened")
    require("fusermount3")
    path = store.with_name(f"{store.name}.mount")
    path.mkdir(parents=True, exist_ok=True)
    command = [*OCISTOW, "--store", str(store), "mount", *options, str(path)]
    with _running(command, store.with_name("mount.log"), lambda _: _is_ready(path)) as pid:
        yield Mount(path, pid)


@dataclass(frozen=True, slots=True)
class Registry:
    """A registry at `127.0.0.1:PORT`, and the process that serves it."""

    host: str
    pid: int


@contextmanager
def registry(directory: Path) -> Generator[Registry]:
    """Run the distribution registry with its content in a new directory."""
    require("docker-registry")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    config, log = directory / "config.yml", directory / "log"
    config.write_text(
        "version: 0.1\n"
        "log: {level: info}\n"
        f"storage: {{filesystem: {{rootdirectory: {directory / 'content'}}}}}\n"
        'http: {addr: "127.0.0.1:0"}\n'
    )
    pattern = re.compile(r"listening on (127\.0\.0\.1:\d+)")
    command = ["docker-registry", "serve", str(config)]
    with _running(command, log, pattern.search) as pid:
        found = pattern.search(log.read_text())
        assert found is not None
        yield Registry(found[1], pid)


@contextmanager
def docker_daemon(directory: Path, size: int) -> Generator[str]:
    """Run a Docker daemon of its own on a file system of `size` bytes; yields `unix://…`.

    That is an ext4 with a journal, as most machines have it, on a loop device.
    """
    require("dockerd", "docker", "containerd", "runc", "mkfs.ext4")
    if os.geteuid() != 0:
        raise Missing("a Docker daemon of its own needs root")
    directory.mkdir(parents=True, exist_ok=True)
    data, socket, log = directory / "data", directory / "socket", directory / "dockerd.log"
    (directory / "config.json").write_text("{}")
    command = [
        "dockerd",
        f"--config-file={directory / 'config.json'}",
        f"--data-root={data / 'docker'}",
        f"--exec-root={directory / 'exec'}",
        f"--pidfile={directory / 'pid'}",
        f"--host=unix://{socket}",
        "--bridge=none",
        "--iptables=false",
    ]
    with ExitStack() as stack:
        stack.enter_context(_loop_mounted(directory / "disk.img", data, size))
        stack.callback(_unmount_below, directory / "exec")
        stack.callback(_unmount_below, data / "docker")
        listening = f"API listen on {socket}"
        stack.enter_context(_running(command, log, lambda text: listening in text))
        yield f"unix://{socket}"


@dataclass(frozen=True, slots=True)
class Containerd:
    """A containerd at a socket."""

    address: str

    @property
    def ctr(self) -> tuple[str, ...]:
        """The words that start its client."""
        return ("ctr", "--address", self.address)


@contextmanager
def containerd(directory: Path, size: int) -> Generator[Containerd]:
    """Run a containerd of its own, on such a file system."""
    require("containerd", "ctr", "mkfs.ext4")
    if os.geteuid() != 0:
        raise Missing("a containerd of its own needs root")
    directory.mkdir(parents=True, exist_ok=True)
    data, address, log = directory / "data", directory / "socket", directory / "containerd.log"
    config = directory / "config.toml"
    config.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
    command = [
        "containerd",
        f"--config={config}",
        f"--root={data / 'root'}",
        f"--state={directory / 'state'}",
        f"--address={address}",
    ]
    with ExitStack() as stack:
        stack.enter_context(_loop_mounted(directory / "disk.img", data, size))
        stack.callback(_unmount_below, data / "root")
        stack.enter_context(_running(command, log, lambda _: address.exists()))
        yield Containerd(str(address))


@contextmanager
def _running(
    command: Sequence[str], log: Path, is_ready: Callable[[str], object]
) -> Generator[int]:
    """Run a server; `is_ready` is asked with its log until it says so. Yields its number."""
    process: subprocess.Popen[bytes] | None = None
    try:
        with log.open("wb") as stream, uninterrupted():
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=ENVIRONMENT,
                start_new_session=True,  # an interrupt is for us, and we end it
            )
        deadline = time.monotonic() + START
        while not is_ready(log.read_text(errors="replace")):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Missing(f"{command[0]} did not start: {log.read_text()[-1000:]}")
            time.sleep(_POLL)
        yield process.pid
    finally:
        if process is not None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(START)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise


@contextmanager
def _loop_mounted(image: Path, mountpoint: Path, size: int) -> Generator[None]:
    with image.open("wb") as file:
        file.truncate(size)
    mountpoint.mkdir(exist_ok=True)
    try:
        subprocess.run(["mkfs.ext4", "-q", image], check=True, env=ENVIRONMENT)
        # the device is detached when it is unmounted
        subprocess.run(["mount", "-o", "loop", image, mountpoint], check=True, env=ENVIRONMENT)
        try:
            yield
        finally:
            subprocess.run(["umount", mountpoint], check=True, env=ENVIRONMENT)
    finally:
        image.unlink()


def _is_ready(mountpoint: Path) -> bool:
    """Tell whether a mount is as it will be: the last that it does is to set its read-ahead."""
    if not is_mounted(mountpoint):
        return False
    device = mountpoint.stat().st_dev
    bdi = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    return os.geteuid() != 0 or int(bdi.read_text()) == READ_AHEAD


def _unmount_below(directory: Path) -> None:
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in sorted((m for m in mounts if Path(m).is_relative_to(directory)), reverse=True):
        subprocess.run(["umount", mount], check=True, env=ENVIRONMENT)
