"""Where a way does its work: programs that are measured in a directory, next to a daemon."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from .builds import Build
from .daemon import Daemon
from .processes import Sample, timed

API = {"CNB_PLATFORM_API": "0.13", "CNB_EXPERIMENTAL_MODE": "quiet"}
APP = "app"
# what `phase install` installs: `ocistow phase` loads click first, for 30 ms of a build
_START = "import sys; from ocistow.cli.main import main; del sys.argv[0]; main()"
_PROGRAM = (sys.executable, "-c", _START)
_IMGUTIL = (sys.executable, "-m", "ocistow.bench.imgutil")


@dataclass(frozen=True, slots=True)
class Room:
    """Where a way does its work, and with what.

    Attributes:
        directory: its own, empty at first.
        lifecycle: where Go's programs are; None for ours.
        can_mount: else ocistow writes into its store directly.
    """

    directory: Path
    build: Build
    daemon: Daemon
    lifecycle: Path | None = None
    can_mount: bool = True

    def run(self, *command: str | Path) -> Sample:
        """Run a program; what talks to a daemon talks to ours."""
        here = {"DOCKER_HOST": self.daemon.url, **self._no_credentials()}
        return timed(*command, environment={**API, **here}, warm=0)  # once for all of a step

    def phase(self, program: str, image: str, *flags: str, blank: int | None = None) -> Sample:
        """Run a phase; with `blank` it saves as imgutil does, without so many layers."""
        words = [*flags, f"-uid={os.getuid()}", f"-gid={os.getgid()}", "-log-level=error"]
        layers = self.build.layers
        if program == "exporter":
            words += [f"-app={self.build.app}", f"-launcher={self.build.launcher}"]
        if program != "rebaser":
            words += [f"-layers={layers}", f"-run={self.directory / 'run.toml'}"]
        if program == "rebaser":
            words += ["-force"]  # the application remembers the run image by another name
        if program in ("exporter", "rebaser"):
            words += [f"-report={layers / 'report.toml'}"]
        if self.lifecycle is not None:
            return self.run(self.lifecycle / program, *words, image)
        if blank is not None:
            return self.run(*_IMGUTIL, str(blank), program, *words, image)
        return self.run(*_PROGRAM, program, *words, image)

    def begin(self, run: str) -> None:
        """Forget the last build; the next stands upon `run`."""
        self.build.begin()
        self._docker.mkdir()
        (self._docker / "config.json").write_text("{}")
        (self.directory / "run.toml").write_text(f'[[images]]\nimage = "{run}"\n')

    def _no_credentials(self) -> dict[str, str]:
        """Return where nobody's are found: the registries ask for none, and helpers take time."""
        found = {
            "DOCKER_CONFIG": str(self._docker),
            "REGISTRY_AUTH_FILE": str(self._docker / "config.json"),
        }
        # a daemon's certificates lie beside them
        if os.environ.keys() & {"DOCKER_TLS", "DOCKER_TLS_VERIFY"}:
            place = os.environ.get("DOCKER_CONFIG") or str(Path.home() / ".docker")
            found["DOCKER_CERT_PATH"] = os.environ.get("DOCKER_CERT_PATH") or place
        return found

    @property
    def _docker(self) -> Path:
        return self.directory / "docker"

    def on_disk(self) -> int:
        """Return the bytes that this way has on disk, each inode once."""
        found: dict[int, int] = {}
        for above, directories, names in os.walk(self.directory):
            directories[:] = [d for d in directories if not os.path.ismount(f"{above}/{d}")]
            for path in (above, *(os.path.join(above, name) for name in names)):
                status = os.lstat(path)
                found[status.st_ino] = status.st_blocks * 512
        return sum(found.values())
