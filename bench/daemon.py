"""A Docker daemon in which a benchmark has names of its own, and touches no other."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex

from ..oci.digest import Digest
from ..oci.document import members
from ..oci.reference import Reference
from ..publish.access import Access
from ..publish.copy import copy
from ..publish.docker.engine import Engine
from ..publish.docker.host import Host, find_host
from ..publish.layout import LayoutSource
from ..publish.transports import open_sink
from .launch import traffic

_SPACE = "ocistow-bench.invalid"  # no registry has this name


def new_space() -> str:
    """Return what all names of one run begin with, and those of no other."""
    return f"{_SPACE}/{token_hex(8)}"  # a random file's name may have `_` where none may be


@dataclass(slots=True)
class Daemon:
    """A daemon at `url`.

    Attributes:
        space: what all our names begin with.
        pid: of its process; 0 if it is not on this machine, or nobody may tell.
    """

    url: str
    space: str
    pid: int = 0
    _names: set[str] = field(default_factory=set[str])

    def name(self, image: str) -> str:
        """Return a name of ours, which is removed in the end."""
        name = f"{self.space}/{image}:latest"
        self._names.add(name)
        return name

    def owns(self, name: str) -> str:
        """Return a name that somebody else gives an image, and that is removed in the end."""
        self._names.add(name)
        return name

    def owns_digests(self, name: str) -> None:
        """Note the digests by which an image is known as well; they keep it when its names go."""
        with self._engine() as engine:
            found = engine.inspect(name) or {}
        repository = name.rpartition(":")[0]
        known = (str(entry) for entry in members(found.get("RepoDigests"), name))
        self._names.update(entry for entry in known if entry.startswith(f"{repository}@"))

    def load(self, layout: Path, image: str) -> str:
        """Take an image out of a layout, and return what it is called."""
        name = self.name(image)
        access = Access(docker_host=self.url)
        with open_sink(f"docker-daemon:{name}", access=access) as sink:
            copy(LayoutSource(layout, image), sink)
        return name

    def diff_ids(self, name: str) -> tuple[Digest, ...]:
        """Return what an image consists of; nothing if it is not there."""
        with self._engine() as engine:
            found = engine.image(name)
        return found.diff_ids if found is not None else ()

    def tag(self, name: str, other: str) -> None:
        """Give an image another name."""
        with self._engine() as engine:
            engine.tag(name, Reference.parse(other))

    def remove(self, *names: str) -> None:
        """Take names of ours away, and images that have no other."""
        with self._engine() as engine:
            for name in names:
                engine.remove(Reference.parse(name))
                self._names.discard(name)

    def close(self, but: Collection[str] = ()) -> None:
        """Take all names of ours away, `but` some."""
        # a digest that a registry gave keeps an image, too, until the registry's names are gone
        names = self._names - set(but)
        self.remove(*sorted(names, key=lambda name: name.startswith(self.space)))

    @property
    def is_near(self) -> bool:
        """Whether it is on this machine."""
        return find_host(Access(docker_host=self.url)).is_near

    def unseen(self) -> str:
        """Return why it is not known how much it reads and writes; nothing if it is."""
        if not self.is_near:
            return "the daemon is on another machine"
        if not self.pid:
            return "the daemon's process is not known, or may not be read, which takes root"
        with self._engine() as engine:
            if engine.has_containerd_store():
                return "containerd, another process, writes for the daemon"
        return ""

    def release(self) -> str:
        """Return its version and its kind of store, on which its times depend.

        Raises:
            RegistryUnavailable: it does not answer.
        """
        with self._engine() as engine:
            kind = "containerd's" if engine.has_containerd_store() else "the classic"
            return f"{engine.version()}, {kind} store"

    @contextmanager
    def _engine(self) -> Generator[Engine]:
        access = Access(docker_host=self.url)
        with Engine(find_host(access), access.timeout) as engine:
            yield engine


@contextmanager
def used(url: str | None, space: str) -> Generator[Daemon]:
    """Yield the daemon at `url`, or docker's own; all names of ours are removed afterwards.

    Raises:
        RegistryUnavailable: none answers.
    """
    host = find_host(Access(docker_host=url))
    daemon = Daemon(host.url, space, _listener(host))
    daemon.release()
    try:
        yield daemon
    finally:
        daemon.close()


def _listener(host: Host) -> int:
    """Return the process that made a socket, if it may be watched."""
    if not isinstance(host.address, str):
        return 0
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(host.address)
        except OSError:
            return 0  # who asks next is told why
        size = struct.calcsize("3i")
        found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    pid: int = struct.unpack("3i", found)[0]
    if pid <= 1 or not os.path.isdir(f"/proc/{pid}"):  # 1: systemd made it, and hands it over
        return 0
    return pid if traffic(pid)[0] else 0
