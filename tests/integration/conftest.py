"""Real servers for the whole session, on loopback and with directories of their own."""

import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
START = 60.0  # seconds; dockerd loads its drivers and starts containerd
STOP = 60.0


class Log:
    """Reads what a server writes to stderr, so that a test can wait for a line of it."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._condition = threading.Condition()
        self._lines: list[str] = []
        self._ended = False
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Return the first match; fail when the server ends or takes too long."""

        def found() -> re.Match[str] | bool:
            matches = (re.search(pattern, line) for line in self._lines)
            return next((match for match in matches if match), None) or self._ended

        with self._condition:
            match = self._condition.wait_for(found, START)
            if not isinstance(match, re.Match):
                pytest.fail(f"no {pattern!r} in: {''.join(self._lines[-20:])}")
            return match

    def find(self, pattern: str) -> list[re.Match[str]]:
        """Return the matches of all lines so far."""
        with self._condition:
            matches = [re.search(pattern, line) for line in self._lines]
        return [match for match in matches if match]

    def __len__(self) -> int:
        """Return the number of lines so far."""
        with self._condition:
            return len(self._lines)

    def join(self) -> None:
        """Wait for the end of the stream."""
        self._thread.join()

    def _read(self) -> None:
        for line in self._stream:
            with self._condition:
                self._lines.append(line)
                self._condition.notify_all()
        with self._condition:
            self._ended = True
            self._condition.notify_all()


@dataclass(frozen=True, slots=True)
class DockerRegistry:
    """A distribution registry. `host` is `127.0.0.1:PORT`; its content lies below `root`."""

    host: str
    root: Path
    log: Log


@dataclass(frozen=True, slots=True)
class Dockerd:
    """A Docker daemon at `host`, `unix:///path`."""

    host: str

    def run(self, *arguments: str) -> str:
        """Run the docker client and return what it prints."""
        command = [program("docker"), "--host", self.host, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def program(name: str) -> str:
    """Return the path of a program, or skip the test."""
    found = shutil.which(name, path=PATH)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@contextmanager
def running(command: Sequence[str]) -> Generator[Log]:
    """Run a server for the block; it must end when it is told to."""
    environment = {**os.environ, "PATH": PATH}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        log = Log(process.stderr)
        try:
            yield log
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            finally:
                log.join()


@contextmanager
def serving(directory: Path, more: str = "", http: str = "") -> Generator[DockerRegistry]:
    """Run a registry for the block; `more` and `http` go into its configuration."""
    root, config = directory / "content", directory / "config.yml"
    directory.mkdir(exist_ok=True)
    config.write_text(
        f"""
version: 0.1
log: {{level: info}}
storage:
  filesystem: {{rootdirectory: {root}}}
  delete: {{enabled: true}}
http:
  addr: "127.0.0.1:0"
  {http}
{more}
"""
    )
    with running([program("docker-registry"), "serve", str(config)]) as log:
        yield DockerRegistry(log.wait_for(r"listening on (127\.0\.0\.1:\d+)")[1], root, log)


@pytest.fixture(scope="session")
def docker_registry(tmp_path_factory: pytest.TempPathFactory) -> Generator[DockerRegistry]:
    with serving(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture(scope="session")
def dockerd(tmp_path_factory: pytest.TempPathFactory) -> Generator[Dockerd]:
    with serving_docker(tmp_path_factory.mktemp("dockerd")) as daemon:
        yield daemon


@contextmanager
def serving_docker(directory: Path) -> Generator[Dockerd]:
    """Run a Docker daemon that has nothing, with all of its own in an empty directory."""
    if os.geteuid() != 0:
        pytest.skip("dockerd needs root")
    for needed in ("dockerd", "docker", "containerd", "runc"):
        program(needed)
    (directory / "config.json").write_text("{}")
    socket = directory / "socket"
    command = [
        program("dockerd"),
        f"--config-file={directory / 'config.json'}",
        f"--data-root={directory / 'data'}",
        f"--exec-root={directory / 'exec'}",
        f"--pidfile={directory / 'pid'}",
        f"--host=unix://{socket}",
        "--bridge=none",
        "--iptables=false",
    ]
    try:
        with running(command) as log:
            log.wait_for(rf"API listen on {re.escape(str(socket))}")
            yield Dockerd(f"unix://{socket}")
    finally:
        for mount in mounts_below(directory):
            subprocess.run(["umount", "--lazy", mount], check=True)
        shutil.rmtree(directory / "data", ignore_errors=True)


def mounts_below(directory: Path) -> list[str]:
    """Return what is mounted below a directory, the innermost first."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4] for line in mounts]
    return sorted((p for p in points if Path(p).is_relative_to(directory)), reverse=True)
