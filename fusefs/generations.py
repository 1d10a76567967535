"""Generations: files that are still being written, and how they come to count."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, suppress
from weakref import WeakValueDictionary

import trio

from ..oci.digest import CANONICAL, Digest
from ..oci.errors import InvalidContent, NotFound, OcistowError
from .contents import Blob, Content, Guarded, Staged
from .places import Place
from .staging import Staging
from .tree import Node, stale
from .view import View, refused

log = logging.getLogger(__name__)

_INLINE = 1 << 20  # bytes that are freed sooner than a thread is there


class Generations:
    """What is staged on one mount, and the indexes that wait. Lives on the event loop."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._staged: set[Staged] = set()  # all that are not over
        self._waiting: set[Staged] = set()  # indexes whose manifests are still to come
        self._turns: WeakValueDictionary[int, trio.Lock] = WeakValueDictionary()  # by directory

    def __len__(self) -> int:
        return len(self._waiting)

    def stage(
        self,
        parent: Node[Content],
        name: bytes,
        place: Place,
        mode: int = 0o644,
        digest: Digest | None = None,
    ) -> Staged:
        """Begin a generation of a file, a blob if it has a `digest`; one handle is the caller's."""
        algorithm = digest.algorithm if digest else CANONICAL
        ingest = self._view.store.blobs.ingest(algorithm, behind=True)
        self._view.tree.hold(parent)  # whose path is needed when all is written
        staged = Staged(Staging(ingest, place, mode & 0o777), parent, name, digest=digest)
        self._staged.add(staged)
        return staged

    def move(self, parent: Node[Content], name: bytes) -> None:
        """Note that an index or marker was moved, and its writers' bytes will not follow.

        On a disk they would. So that they are not lost in silence, close(2) refuses them.
        """
        for staged in self._staged:
            is_guarded = staged.staging.place in (Place.INDEX, Place.MARKER)
            if is_guarded and staged.parent is parent and staged.name == name:
                staged.is_moved = True

    async def settle(self, staged: Staged, *, again: bool = False) -> None:
        """Decide about what was written; `again` also about an index that waits.

        Raises:
            InvalidContent: it is refused; nobody but its writer ever saw it.
        """
        staging = staged.staging
        async with staged.lock:
            if not (staging.unsettled or (again and staged in self._waiting)):
                return  # perhaps somebody settled it while we waited
            if not staged.is_moved and self._is_unlinked(staged):
                staging.unsettled = False
                return
            try:
                if staged.is_moved:
                    raise InvalidContent("it was renamed while it was open")
                if staging.place is Place.BLOB:
                    await self._settle_blob(staged)
                elif staging.place is Place.MARKER:
                    raw = staging.document()
                    await self._view.blocking(self._view.gate.marker, raw, staged.parent.path)
                    self._accept(staged, self._guarded(staged))
                elif staging.place is Place.INDEX:
                    await self._settle_index(staged, again=again)
            except InvalidContent as error:
                staging.refusal = str(error)
                raise
        if staging.place is Place.BLOB:
            await self.settled()

    async def settled(self) -> None:
        """Tell waiting indexes that a blob arrived, which may be what they waited for."""
        for staged in list(self._waiting):
            if staged.missing is not None and staged.missing in self._view.store.blobs:
                try:
                    await self.settle(staged, again=True)
                except (OcistowError, OSError) as error:
                    log.warning("refused %s: %s", _path(staged), error)
                    self._view.counters.add("refused", staged.staging.size)
                    staged.staging.unsettled = False
                    self.drop(staged)
                self.drop_if_over(staged)

    async def put_index(self, raw: bytes, directory: Node[Content], name: bytes) -> None:
        """Let a document that has been written elsewhere become a directory's index, or wait.

        Raises:
            InvalidContent: it or what it reaches is malformed, or is absent although there is
                an index already.
        """
        async with self._turn(directory):
            try:
                await self._commit_index(raw, directory)
            except NotFound as error:
                if self._view.has_index(directory):
                    raise _absent(error) from None
                waiting = self.stage(directory, name, Place.INDEX)
                waiting.staging.handles = 0
                waiting.staging.write(0, raw)
                self._wait_for(waiting, error)
            else:
                self._end_waiting(directory, name)

    def drop(self, staged: Staged) -> None:
        """Take the name from a visible staged file, and the content when nobody has it open."""
        key = (staged.parent.inode, staged.name)
        if self._view.staged.get(key) is staged:
            del self._view.staged[key]
            self._view.tree.unname(staged.parent, staged.name)
        self._waiting.discard(staged)
        staged.missing = None
        self.drop_if_over(staged)

    def drop_if_over(self, staged: Staged) -> None:
        """Let content go that nobody has open and no name leads to."""
        key = (staged.parent.inode, staged.name)
        if staged.is_over or staged.staging.handles or self._view.staged.get(key) is staged:
            return
        if staged.staging.unsettled and staged.staging.refusal:
            log.warning("refused %s: %s", _path(staged), staged.staging.refusal)
            self._view.counters.add("refused", staged.staging.size)
        staged.is_over = True
        self._staged.discard(staged)
        self._view.tree.let_go(staged.parent)
        if staged.staging.size <= _INLINE and not staged.lock.locked():
            staged.staging.discard()
        else:
            trio.lowlevel.spawn_system_task(self._discard, staged)

    async def _discard(self, staged: Staged) -> None:
        """Let content go once nobody is at it, in a thread: to free it takes a disk milliseconds.

        Who renames it may go on when others have removed its name.
        """
        with trio.CancelScope(shield=True):
            try:
                async with staged.lock:
                    await self._view.blocking(staged.staging.discard)
            except OSError as error:
                log.warning("cannot let go what was staged: %s", error)

    def _is_unlinked(self, staged: Staged) -> bool:
        """Tell whether what others saw has lost its name since, which does not come back."""
        if not staged.was_shown or (staged.parent.inode, staged.name) in self._view.staged:
            return False
        try:
            there = self._view.linked(staged.parent, staged.name)
        except OSError:  # ESTALE: its directory is gone, too
            return True
        if staged.staging.place is Place.BLOB:  # it need not have had a link
            return self._view.traces.is_unlinked(staged.parent.inode, staged.name)
        return not there

    async def _settle_blob(self, staged: Staged) -> None:
        if staged.digest is None:
            raise refused(errno.EINVAL)
        path = staged.parent.child(staged.name) if staged.is_named else None
        await self._view.blocking(self._view.gate.blob, staged.staging, staged.digest, path)
        self._accept(staged, Blob(staged.digest))

    async def _settle_index(self, staged: Staged, *, again: bool) -> None:
        async with self._turn(staged.parent):
            if again and staged not in self._waiting:
                return  # another has replaced it
            try:
                await self._commit_index(staged.staging.document(), staged.parent)
            except NotFound as error:
                if self._view.has_index(staged.parent):
                    raise _absent(error) from None
                self._wait_for(staged, error)
            else:
                self._accept(staged, self._guarded(staged))

    def _turn(self, directory: Node[Content]) -> trio.Lock:
        """Return what lets the indexes of a directory be committed in the order of their closes."""
        return self._turns.setdefault(directory.inode, trio.Lock())

    def _end_waiting(
        self, directory: Node[Content], name: bytes, *, but: Staged | None = None
    ) -> None:
        """Give up what waits at a name that now is another's: the last to close wins."""
        replaced = self._view.staged.get((directory.inode, name))
        if replaced is not None and replaced is not but:
            self.drop(replaced)

    async def _commit_index(self, raw: bytes, directory: Node[Content]) -> None:
        absent = self._view.missing_directories(directory)
        try:
            await self._view.blocking(self._view.gate.index, raw, directory.path)
        except NotFound as error:
            if isinstance(error.name, Digest):
                raise
            raise stale() from error  # not a manifest is absent, but the directory
        self._view.note_made(directory, absent)

    def _wait_for(self, staged: Staged, error: NotFound) -> None:
        """Show an index whose manifests are still to come, as `cp -a` and tar order them.

        Only where there is no index yet: a good one is never replaced by a hope.
        """
        staged.missing = error.name if isinstance(error.name, Digest) else None
        staged.staging.unsettled = False
        self._end_waiting(staged.parent, staged.name, but=staged)
        self._waiting.add(staged)
        self._view.staged[staged.parent.inode, staged.name] = staged
        staged.was_shown = True
        if staged.node is None:
            staged.node = Node(self._view.numbers.new(), staged)  # of which nobody knows yet
        self._view.tree.name(staged.node, staged.parent, staged.name)

    def _accept(self, staged: Staged, content: Content) -> None:
        staged.staging.unsettled = False
        staged.staging.refusal = ""
        staged.missing = None
        self._waiting.discard(staged)
        key = (staged.parent.inode, staged.name)
        self._end_waiting(staged.parent, staged.name, but=staged)
        if staged.is_named:
            staged.was_shown = True
            self._view.traces.write(staged.parent, staged.name)
        if staged.node is not None:
            if self._view.staged.get(key) is staged:
                del self._view.staged[key]
            staged.node.content = content
            self._view.tree.name(staged.node, staged.parent, staged.name)

    def _guarded(self, staged: Staged) -> Guarded:
        status = os.fstat(staged.staging.ingest.file)
        return Guarded(staged.staging.place, status, (staged.parent, staged.name))

    def describe_staged(self) -> Iterator[str]:
        """Yield a line for every staged file that has a name. From any thread."""
        for staged in list(self._view.staged.values()):
            staging, locked = staged.staging, ", locked" if staged.lock.locked() else ""
            with suppress(OSError):  # its file was closed just now
                yield f"{_path(staged)}: {staging.size} bytes, {staging.handles} open{locked}"

    def describe_waiting(self) -> Iterator[str]:
        """Yield a line for every index that waits. From any thread."""
        yield from map(why_waiting, list(self._waiting))

    def close(self) -> None:
        """End with the mount: let go what is staged, and say what was never accepted."""
        for staged in list(self._waiting):
            log.warning("gave up %s", why_waiting(staged))
        for staged in self._view.staged.values():
            staged.staging.discard()


@asynccontextmanager
async def current(content: Staged) -> AsyncGenerator[None]:
    """Keep what is staged as it is for the block.

    Raises:
        OSError: ESTALE, since it is over.
    """
    async with content.lock:
        if content.is_over:
            raise stale()
        yield


def _path(staged: Staged) -> str:
    try:
        return os.fsdecode(staged.parent.child(staged.name))
    except OSError:  # its directory is gone
        return os.fsdecode(staged.name)


def _absent(error: NotFound) -> InvalidContent:
    return InvalidContent(f"index.json mentions {error.name}, which is absent")


def why_waiting(staged: Staged) -> str:
    """Return what an index that waits is still without."""
    return f"{_path(staged)}: it mentions {staged.missing}, which never came"
