"""Blobs that an index mentions and nobody here has: shown as if, and fetched when opened."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TypeAlias

import trio

from ..oci.digest import Digest
from ..oci.errors import NotFound
from ..store.files import Files
from .calls import in_thread
from .contents import Content
from .gate import Gate
from .tree import Node

log = logging.getLogger(__name__)

FETCHES = 8  # at once; each has a thread

Fill: TypeAlias = Callable[[PurePosixPath, Digest, int], None]
Name: TypeAlias = tuple[int, bytes]  # a directory's inode, and a name in it


@dataclass(slots=True, eq=False)
class _Fetch:
    """A blob on its way; several clients may wait for it."""

    done: trio.Event = field(default_factory=trio.Event)
    failure: Exception | None = None

    def give_up(self) -> None:
        """Let nobody wait for it."""
        self.failure = ConnectionAbortedError(errno.ECONNABORTED, os.strerror(errno.ECONNABORTED))
        self.done.set()


class Filling:
    """What could be fetched, as far as clients have asked. Lives on the event loop.

    `fill` brings a blob of this digest and size, which the index of a layout mentions, into the
    store. It is called in a thread, once for each blob however many clients wait, and goes on
    when they do not wait any more.
    """

    def __init__(self, fill: Fill, gate: Gate, files: Files) -> None:
        self._fill = fill
        self._gate = gate
        self._files = files
        self._sizes: dict[int, dict[bytes, int]] = {}  # by directory
        self._mentions: dict[int, tuple[tuple[int, ...], Mapping[Digest, int]]] = {}  # by layout
        self._fetches: dict[Digest, _Fetch] = {}
        self._threads = trio.CapacityLimiter(FETCHES)  # apart: they wait for the network
        self._is_over = False
        self._readers = trio.CapacityLimiter(2)

    def size(self, name: Name) -> int | None:
        """Return the size of an absent blob that may be fetched, as `look` found out."""
        return self._sizes.get(name[0], {}).get(name[1])

    async def look(self, parent: Node[Content], name: bytes, digest: Digest) -> None:
        """Find out whether the layout around `parent` mentions a blob that is absent."""
        layout = _layout_of(parent)
        size = (await self._mentioned(layout)).get(digest) if layout is not None else None
        if size is None:
            self._sizes.get(parent.inode, {}).pop(name, None)
        else:
            self._sizes.setdefault(parent.inode, {})[name] = size

    async def bring(self, parent: Node[Content], name: bytes, digest: Digest) -> None:
        """Return once the store has a blob.

        Raises:
            OcistowError: what `fill` raised.
            OSError: likewise; ECONNABORTED when the mount ends.
        """
        layout, size = _layout_of(parent), self.size((parent.inode, name))
        if layout is None or size is None:
            raise NotFound(digest)
        await self.fetch(PurePosixPath(os.fsdecode(layout.path)), {digest: size})

    async def fetch(self, layout: PurePosixPath, wanted: Mapping[Digest, int]) -> None:
        """Return once the store has these blobs of a layout, which have these sizes; as `bring`."""
        for fetch in [self._begun(layout, digest, size) for digest, size in wanted.items()]:
            await fetch.done.wait()
            if fetch.failure is not None:
                raise fetch.failure

    def give_up(self) -> None:
        """Let nobody wait any more: the mount ends."""
        self._is_over = True
        for fetch in self._fetches.values():
            fetch.give_up()

    def forget_directory(self, inode: int) -> None:
        """Forget what was found out about a directory that is gone."""
        self._sizes.pop(inode, None)
        self._mentions.pop(inode, None)

    def _begun(self, layout: PurePosixPath, digest: Digest, size: int) -> _Fetch:
        fetch = self._fetches.get(digest)
        if fetch is None:
            fetch = self._fetches[digest] = _Fetch()
            if self._is_over:
                fetch.give_up()
            trio.lowlevel.spawn_system_task(self._run, fetch, layout, digest, size)
        return fetch

    async def _run(self, fetch: _Fetch, layout: PurePosixPath, digest: Digest, size: int) -> None:
        try:
            threads = self._threads
            await in_thread(self._fill, layout, digest, size, limiter=threads, abandon=True)
        except Exception as error:  # for whoever waits; a bug ends the mount there
            log.warning("cannot fetch %s of %s: %s", digest, layout, error)
            fetch.failure = error
        finally:
            del self._fetches[digest]
            fetch.done.set()

    async def _mentioned(self, layout: Node[Content]) -> Mapping[Digest, int]:
        try:
            status = self._files.stat(layout.child(b"index.json"))
        except OSError:
            return {}
        key = (status.st_ino, status.st_ctime_ns, status.st_size)
        known = self._mentions.get(layout.inode)
        if known is None or known[0] != key:
            layers = await in_thread(self._gate.layers, layout.path, limiter=self._readers)
            known = self._mentions[layout.inode] = (key, layers)
        return known[1]


def _layout_of(names: Node[Content]) -> Node[Content] | None:
    """Return the layout with this `blobs/<algorithm>` directory."""
    return names.parent.parent if names.parent is not None else None
