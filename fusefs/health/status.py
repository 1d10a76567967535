"""The status of mounts: told by each server on a socket, to its owner and root alone.

Sockets have abstract names (unix(7)): they end with their process, need no directory, and a
store that may only be read can be mounted. Whoever connects gets one JSON document.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ...oci.document import parse_object
from ...oci.errors import InvalidContent
from ..counters import Counters
from ..filesystem import FileSystem

PREFIX = "ocistow/mount/"
LIMIT = 1 << 20  # bytes of a document; one has some kilobytes
TIMEOUT = 5.0  # seconds for either side

_PEER = struct.Struct("3i")  # pid, uid, gid: unix(7), SO_PEERCRED


@dataclass(frozen=True, slots=True)
class About:
    """What a mount is."""

    mountpoint: Path
    store: Path
    engine: str
    read_only: bool


class Status:
    """Answers for one mount, in a thread of its own, in a `with` block."""

    def __init__(self, filesystem: FileSystem, about: About) -> None:
        self._filesystem = filesystem
        self._about = about
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="status", daemon=True)

    def __enter__(self) -> Self:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.bind(f"\0{PREFIX}{os.urandom(8).hex()}")
            self._socket.listen()
        except OSError:
            self._socket.close()
            raise
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)  # which accept(2) notices
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ECONNABORTED):
                    time.sleep(0.1)  # there will be a descriptor again
                    continue
                return
            with client, contextlib.suppress(OSError):
                if _is_trusted(client):
                    client.settimeout(TIMEOUT)
                    client.sendall(json.dumps(self.document()).encode())

    def document(self) -> dict[str, object]:
        """Return the status, for JSON. Waits for nobody."""
        about, filesystem = self._about, self._filesystem
        requests, counters, now = filesystem.requests, filesystem.counters, time.monotonic_ns()
        waiting = requests.waiting()
        operations = sorted(requests.latencies.copy().items())  # which nobody changes
        return {
            "mountpoint": str(about.mountpoint),
            "store": str(about.store),
            "engine": about.engine,
            "readOnly": about.read_only,
            "pid": os.getpid(),
            "uptimeSeconds": round(time.monotonic() - self._began, 3),
            "content": {
                kind: {"files": counters[kind].files, "bytes": counters[kind].size}
                for kind in Counters.KINDS
            },
            "reads": {"cached": counters.cached_reads, "disk": counters.disk_reads},
            "kept": dict(filesystem.sizes),
            "requests": {
                "underWay": len(waiting),
                "oldestSeconds": round((now - waiting[0].began) / 1e9, 6) if waiting else 0,
            },
            "operations": {
                name: {
                    "count": times.count,
                    "totalSeconds": times.total / 1e9,
                    "p50Seconds": times.quantile(0.5) / 1e9,
                    "p99Seconds": times.quantile(0.99) / 1e9,
                    "longestSeconds": times.longest / 1e9,
                }
                for name, times in operations
            },
            "errors": {
                errno.errorcode.get(code, str(code)): count
                for code, count in sorted(requests.errors.items())
            },
        }


def statuses() -> Iterator[Mapping[str, object]]:
    """Yield the status of every mount on this machine that tells this user."""
    for line in Path("/proc/net/unix").read_text(errors="replace").splitlines():
        _, mark, name = line.partition(f" @{PREFIX}")
        if mark:
            with contextlib.suppress(OSError, InvalidContent):  # ended, or another user's
                yield _ask(f"\0{PREFIX}{name}")


def _ask(address: str) -> Mapping[str, object]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as server:
        server.settimeout(TIMEOUT)
        server.connect(address)
        if os.geteuid() and not _is_trusted(server):  # anybody may take a name
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        with server.makefile("rb") as stream:
            return parse_object(stream.read(LIMIT), "status")


def _is_trusted(peer: socket.socket) -> bool:
    """Tell whether the other end belongs to root or to this user."""
    _, user, _ = _PEER.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return user in (0, os.geteuid())
