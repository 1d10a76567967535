"""Ways of a build into a daemon, and further into a registry.

Each begins with the run image in the daemon and ends with the application's there. Analyzer,
exporter and rebaser are ocistow's in all of them; what differs is where these read and write
images, and what brings them there and away.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..oci.reference import Reference
from .builds import Build
from .daemon import Daemon
from .processes import OCISTOW, Sample, timed
from .servers import mounted, registry

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


class Way(Protocol):
    """One of them, while its servers run. What takes no time returns None."""

    @property
    def servers(self) -> tuple[int, ...]:
        """The processes besides the daemon that serve it."""
        ...

    def bring(self, run: str) -> Sample | None:
        """Bring a run image from the daemon to where the phases look for it."""
        ...

    def export(self, run: str) -> Sample:
        """Analyze and export."""
        ...

    def rebase(self, run: str) -> Sample:
        """Put the application on another run image."""
        ...

    def deliver(self) -> Sample | None:
        """Bring the application from where it was exported to into the daemon, called `APP`."""
        ...

    def push(self, target: str) -> Sample:
        """Bring it into a registry, `HOST/REPOSITORY:TAG`."""
        ...


@dataclass(frozen=True, slots=True)
class DaemonWay:
    """The daemon directly, as the lifecycle does it today.

    The first time all layers are sent, then all but the run image's. Layers that are reused
    come out of a launch cache, and a rebase asks the daemon for the whole image.
    """

    room: Room
    servers: tuple[int, ...] = ()

    def bring(self, run: str) -> None:
        """Do nothing: it is there."""

    def export(self, run: str) -> Sample:
        """Save into the daemon."""
        app = self.room.daemon.name(APP)
        cached = ("-daemon", f"-launch-cache={self.room.directory / 'launch-cache'}")
        is_first = not self.room.daemon.diff_ids(app)
        blank = 0 if is_first else self.room.build.base_layers
        (self.room.directory / "launch-cache").mkdir(exist_ok=True)
        analyzed = self.room.phase(
            "analyzer", app, *cached, f"-run-image={self.room.daemon.name(run)}", blank=blank
        )
        return analyzed + self.room.phase("exporter", app, *cached, blank=blank)

    def rebase(self, run: str) -> Sample:
        """Save into the daemon."""
        run_image = f"-run-image={self.room.daemon.name(run)}"
        blank = self.room.build.base_layers
        app = self.room.daemon.name(APP)
        return self.room.phase("rebaser", app, "-daemon", run_image, blank=blank)

    def deliver(self) -> None:
        """Do nothing: it is there."""

    def push(self, target: str) -> Sample:
        """Let docker push it."""
        self.room.daemon.tag(self.room.daemon.name(APP), self.room.daemon.owns(target))
        return self.room.run("docker", "push", "--quiet", target)


@dataclass(frozen=True, slots=True)
class LayoutWay:
    """A plain image layout, skopeo in and out: the draft's proof of concept.

    Attributes:
        packing: what skopeo is told about layers that come out of the daemon, which are not
            compressed. It compresses them unless it is told to keep them.
    """

    room: Room
    packing: tuple[str, ...] = ()
    servers: tuple[int, ...] = ()

    def bring(self, run: str) -> Sample:
        """Let skopeo copy it, as it did in every build."""
        name = self.room.daemon.name(run)
        path = self._layout(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return self._skopeo(*self.packing, f"docker-daemon:{name}", f"oci:{path}:latest")

    def export(self, run: str) -> Sample:
        """Write a layout."""
        return in_layout(self.room, self._top, run)

    def rebase(self, run: str) -> Sample:
        """Write a layout."""
        return rebase_in_layout(self.room, self._top, run)

    def deliver(self) -> Sample:
        """Let skopeo copy it."""
        return self._skopeo(self._app(), f"docker-daemon:{self.room.daemon.name(APP)}")

    def push(self, target: str) -> Sample:
        """Let skopeo copy it."""
        return self._skopeo("--dest-tls-verify=false", self._app(), f"docker://{target}")

    @property
    def _top(self) -> Path:
        return self.room.directory / "oci"

    def _app(self) -> str:
        return f"oci:{self._layout(self.room.daemon.name(APP))}"

    def _layout(self, name: str) -> Path:
        return self._top / Reference.parse(name).path

    def _skopeo(self, *words: str) -> Sample:
        url = self.room.daemon.url
        options: list[str] = []
        for word, option in zip(
            words[-2:], ("--src-daemon-host", "--dest-daemon-host"), strict=True
        ):
            if word.startswith("docker-daemon:"):
                options += [option, url]
        return self.room.run("skopeo", "copy", "--quiet", *options, *words)


@dataclass(frozen=True, slots=True)
class RegistryWay:
    """A registry that lives as long as the builds: docker push, export, docker pull."""

    room: Room
    host: str
    servers: tuple[int, ...]

    def bring(self, run: str) -> Sample:
        """Let docker push it."""
        self.room.daemon.tag(self.room.daemon.name(run), self._name(run))
        return self.room.run("docker", "push", "--quiet", self._name(run))

    def export(self, run: str) -> Sample:
        """Push, without the layers that the registry has."""
        here = f"-insecure-registry={self.host}"
        run_image = f"-run-image={self._name(run)}"
        analyzed = self.room.phase("analyzer", self._name(APP), here, run_image)
        return analyzed + self.room.phase("exporter", self._name(APP), here)

    def rebase(self, run: str) -> Sample:
        """Push a config and a manifest."""
        here, run_image = f"-insecure-registry={self.host}", f"-run-image={self._name(run)}"
        return self.room.phase("rebaser", self._name(APP), here, run_image)

    def deliver(self) -> Sample:
        """Let docker pull it, and give it the name that the others give it."""
        name = self._name(APP)
        pulled = self.room.run("docker", "pull", "--quiet", name)
        self.room.daemon.owns_digests(name)
        return pulled + self.room.run("docker", "tag", name, self.room.daemon.name(APP))

    def push(self, target: str) -> Sample:
        """Let skopeo copy it from one to the other."""
        plain = ("--src-tls-verify=false", "--dest-tls-verify=false")
        there = (f"docker://{self._name(APP)}", f"docker://{target}")
        return self.room.run("skopeo", "copy", "--quiet", *plain, *there)

    def _name(self, image: str) -> str:
        return self.room.daemon.owns(f"{self.host}/bench/{image}:latest")


@dataclass(frozen=True, slots=True)
class StoreWay:
    """A store of ocistow: `add`, the phases on its mount, the publisher."""

    room: Room
    store: Path
    layouts: Path
    servers: tuple[int, ...]

    def bring(self, run: str) -> Sample:
        """Add it; layers that the store has are not asked for."""
        return self._ocistow("add", f"docker-daemon:{self.room.daemon.name(run)}")

    def export(self, run: str) -> Sample:
        """Write what the store lacks."""
        return in_layout(self.room, self.layouts, run)

    def rebase(self, run: str) -> Sample:
        """Write a config and a manifest."""
        return rebase_in_layout(self.room, self.layouts, run)

    def deliver(self) -> Sample:
        """Publish it, without the layers that the daemon has."""
        name = self.room.daemon.name(APP)
        return self._ocistow("publish", name, f"docker-daemon:{name}")

    def push(self, target: str) -> Sample:
        """Publish it."""
        return self._ocistow("publish", self.room.daemon.name(APP), f"docker://{target}")

    def _ocistow(self, *words: str) -> Sample:
        return self.room.run(*OCISTOW, "--store", self.store, *words)


def in_layout(room: Room, top: Path, run: str) -> Sample:
    """Analyze and export below a directory of layouts."""
    app = room.daemon.name(APP)
    there = ("-layout", f"-layout-dir={top}")
    run_image = f"-run-image={room.daemon.name(run)}"
    return room.phase("analyzer", app, *there, run_image) + room.phase("exporter", app, *there)


def rebase_in_layout(room: Room, top: Path, run: str) -> Sample:
    """Rebase below a directory of layouts."""
    there = ("-layout", f"-layout-dir={top}", f"-run-image={room.daemon.name(run)}")
    return room.phase("rebaser", room.daemon.name(APP), *there)


Open = Callable[[Room], Generator[Way]]


def _daemon(room: Room) -> Generator[Way]:
    yield DaemonWay(room)


def _layout(room: Room) -> Generator[Way]:
    yield LayoutWay(room)


def _uncompressed(room: Room) -> Generator[Way]:
    yield LayoutWay(room, ("--dest-oci-accept-uncompressed-layers",))


def _registry(room: Room) -> Generator[Way]:
    with registry(room.directory / "registry") as server:
        yield RegistryWay(room, server.host, (server.pid,))


def _store(room: Room) -> Generator[Way]:
    store = room.directory / "store"
    if not room.can_mount:
        yield StoreWay(room, store, store / "layouts", ())
        return
    with mounted(store) as mount:
        yield StoreWay(room, store, mount.path, (mount.pid,))


OURS, UNCOMPRESSED = "ocistow", "uncompressed"
WAYS: dict[str, Open] = {
    OURS: _store,
    "daemon": _daemon,
    "layout": _layout,
    UNCOMPRESSED: _uncompressed,
    "registry": _registry,
}
ABOUT = {
    OURS: "a mounted store, ocistow add and publish",
    "daemon": "the daemon directly, as the lifecycle does today",
    "layout": "a plain image layout, skopeo in and out",
    UNCOMPRESSED: "such a layout, of which skopeo does not compress the run image",
    "registry": "an ephemeral registry, docker push and pull",
}
open_way = {name: contextmanager(way) for name, way in WAYS.items()}
