"""Ways of a build into a daemon, and further into a registry.

Each begins with the run image in the daemon and ends with the application's there. Analyzer,
exporter and rebaser are ocistow's in all of them; what differs is where these read and write
images, and what brings them there and away.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..oci.reference import Reference
from .processes import OCISTOW, Sample
from .room import APP, Room
from .servers import mounted, registry


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

    All layers but the run image's are sent, which the daemon has. Layers that are reused come out
    of a launch cache, and a rebase asks the daemon for the whole image.

    Attributes:
        is_full: the run image's are sent as well, after the daemon was asked for them. That is
            what the lifecycle does where containerd keeps the images. Source: imgutil,
            local/store.go, Save.
    """

    room: Room
    is_full: bool = False
    servers: tuple[int, ...] = ()

    def bring(self, run: str) -> None:
        """Do nothing: it is there."""

    def export(self, run: str) -> Sample:
        """Save into the daemon."""
        app = self.room.daemon.name(APP)
        cached = ("-daemon", f"-launch-cache={self.room.directory / 'launch-cache'}")
        blank = self._blank()
        (self.room.directory / "launch-cache").mkdir(exist_ok=True)
        analyzed = self.room.phase(
            "analyzer", app, *cached, f"-run-image={self.room.daemon.name(run)}", blank=blank
        )
        return analyzed + self.room.phase("exporter", app, *cached, blank=blank)

    def rebase(self, run: str) -> Sample:
        """Save into the daemon."""
        run_image = f"-run-image={self.room.daemon.name(run)}"
        app = self.room.daemon.name(APP)
        return self.room.phase("rebaser", app, "-daemon", run_image, blank=self._blank())

    def deliver(self) -> None:
        """Do nothing: it is there."""

    def push(self, target: str) -> Sample:
        """Let docker push it."""
        self.room.daemon.tag(self.room.daemon.name(APP), self.room.daemon.owns(target))
        return self.room.run("docker", "push", "--quiet", target)

    def _blank(self) -> int:
        return 0 if self.is_full else self.room.build.base_layers


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


def _full(room: Room) -> Generator[Way]:
    yield DaemonWay(room, is_full=True)


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


OURS, FULL, UNCOMPRESSED = "ocistow", "full", "uncompressed"
WAYS: dict[str, Open] = {
    OURS: _store,
    "daemon": _daemon,
    FULL: _full,
    "layout": _layout,
    UNCOMPRESSED: _uncompressed,
    "registry": _registry,
}
ABOUT = {
    OURS: "a mounted store, ocistow add and publish",
    "daemon": "the daemon directly, as the lifecycle does today",
    FULL: "the same, with the run image's layers, as where containerd keeps images",
    "layout": "a plain image layout, skopeo in and out",
    UNCOMPRESSED: "such a layout, of which skopeo does not compress the run image",
    "registry": "an ephemeral registry, docker push and pull",
}
open_way = {name: contextmanager(way) for name, way in WAYS.items()}
