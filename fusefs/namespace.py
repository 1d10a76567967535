"""Changes to names: directories made, files renamed, linked and removed."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, MutableSequence, Sequence
from contextlib import suppress
from typing import NamedTuple

from ..oci.digest import CANONICAL, Digest
from ..oci.document import MAX_DOCUMENT
from ..oci.errors import InvalidContent
from .attributes import Attributes
from .contents import (
    Blob,
    Content,
    Directory,
    Found,
    Guarded,
    Name,
    Ordinary,
    Staged,
    Symlink,
)
from .generations import Generations, current
from .intent import is_visible
from .places import Place, is_hidden, role_of
from .tree import Node, looked_up, stale
from .view import View, refused

log = logging.getLogger(__name__)

RENAME_NOREPLACE = 1


class Leftover(NamedTuple):
    """What is removed with the directory that it lies in.

    Attributes:
        remove: what does that, to its path.
        above: the directory, if the kernel knows it.
    """

    remove: Callable[[bytes], None]
    path: bytes
    above: Node[Content] | None
    name: bytes


class Namespace:
    """Names of one mount. Lives on the event loop; the kernel orders calls within a directory."""

    def __init__(self, view: View, generations: Generations) -> None:
        self._view = view
        self._generations = generations

    def mkdir(self, parent: int, name: bytes, thread: int = 0) -> Attributes:
        """Make a directory; `thread` is the client's, if that is known.

        In a new `blobs` there is `sha256` at once: skopeo looks for its first blob, often the
        largest, before it makes that, and would not find what the pool has.
        """
        directory = self._view.tree[parent]
        self._view.place_for(directory, name)
        path = directory.child(name)
        try:
            with looked_up():
                self._view.files.mkdir(path)
            self._view.tree.unname(directory, name)  # it was a blob that only the pool has
            if name == b"blobs" and is_visible(thread):  # so that it may make it all the same
                algorithm = b"%b/%b" % (path, CANONICAL.encode())
                self._view.files.mkdir(algorithm)
                self._view.note_made(directory, [algorithm])
        except FileExistsError:
            if self._view.traces.made(parent, name) is None:
                raise
        self._view.traces.claim(parent, name)
        return self._entered(directory, name)

    def symlink(self, parent: int, name: bytes, target: bytes) -> Attributes:
        """Make a symbolic link, where content has no rules to keep."""
        directory = self._view.tree[parent]
        if self._view.place_for(directory, name) is not Place.ORDINARY:
            raise refused(errno.EPERM)
        with looked_up():
            self._view.files.symlink(target, directory.child(name))
        return self._entered(directory, name)

    def readlink(self, inode: int) -> bytes:
        """Return where a symbolic link leads."""
        return self._view.files.readlink(self._view.tree[inode].path)

    async def list(self, inode: int) -> list[bytes]:
        """Return the names in a directory: what the layout really has, not what the pool could.

        Each is there once, and none is missing that was there all the time.
        """
        node = self._view.tree[inode]
        size = self._view.status(node).st_size
        names = await self._view.blocking(self._view.files.list, node.path, size=size)
        found = {name for name in names if not is_hidden(name)}
        found.update(name for parent, name in self._view.staged if parent == inode)
        return sorted(found)

    def unlink(self, parent: int, name: bytes) -> None:
        """Remove a file's name; of a blob the layout's own link, never the pool's file."""
        directory = self._view.tree[parent]
        content = self._view.peek(directory, name).content
        if isinstance(content, Directory):
            raise refused(errno.EISDIR)
        if isinstance(content, Staged):
            self._generations.drop(content)
            return
        if not isinstance(content, Blob) or self._view.linked(directory, name):
            self._view.files.unlink(directory.child(name))
        if isinstance(content, Blob):
            self._view.traces.unlink(parent, name)
        self._view.tree.unname(directory, name)

    def rmdir(self, parent: int, name: bytes) -> None:
        """Remove a directory in which there is nothing that a client made.

        mv(1) to the mount removes what is in its way first: a `blobs` that the commit of the
        index, which it moved before, has made and filled.
        """
        directory = self._view.tree[parent]
        inode = self._view.numbers.number(directory, name, self._view.peek(directory, name))
        path = directory.child(name)
        linked = self._view.traces.made(parent, name) or frozenset()
        for remove, left, above, entry in self._leftovers(inode, path, linked):
            remove(left)
            if above is not None:
                self._view.tree.unname(above, entry)
        self._end((directory, name), lambda: self._view.files.rmdir(path))
        self._view.tree.unname(directory, name)
        self._view.traces.claim(parent, name)
        self._view.forget_directory(inode)

    def _leftovers(self, inode: int, path: bytes, linked: frozenset[bytes]) -> Sequence[Leftover]:
        """Return what no client made in a directory, in the order in which to remove it.

        That is a commit's, of which `linked` are blobs, or of a writer that was killed.

        Raises:
            OSError: ENOTEMPTY, since there is something else.
        """
        if any(above == inode for above, _ in self._view.staged):
            raise refused(errno.ENOTEMPTY)
        node = self._view.tree.get(inode)
        found: MutableSequence[Leftover] = []
        for entry in self._view.files.list(path):
            below = b"%b/%b" % (path, entry)
            if is_hidden(entry) or entry in linked:
                found.append(Leftover(self._view.files.unlink, below, node, entry))
            elif (child := self._view.traces.made(inode, entry)) is not None:
                known = self._view.tree.find(node, entry) if node is not None else None
                found += self._leftovers(known.inode if known else 0, below, child)
                found.append(Leftover(self._view.files.rmdir, below, node, entry))
            else:
                raise refused(errno.ENOTEMPTY)
        return found

    async def link(self, inode: int, parent: int, name: bytes) -> Attributes:
        """Give a file another name; one below `blobs` must be the digest of its content."""
        node, directory = self._view.tree[inode], self._view.tree[parent]
        content, place = node.content, self._view.place_for(directory, name)
        path = directory.child(name)
        if isinstance(content, Blob) and place in (Place.BLOB, Place.ORDINARY):
            if place is Place.BLOB and content.digest != self._view.digest(directory, name):
                raise InvalidContent(f"{os.fsdecode(path)} is {content.digest}")
            with looked_up():
                await self._view.blocking(self._view.files.link_blob, content.digest, path)
            self._view.traces.write(directory, name)
        elif isinstance(content, (Ordinary, Symlink)) and place is Place.ORDINARY:
            with looked_up():
                self._view.files.link(node.path, path)
            self._view.tree.name(node, directory, name)  # by which it is the same file
        elif isinstance(content, Guarded) and place is content.place:
            await self._copy_guarded(node.path, (directory, name), place)
        else:
            raise refused(errno.EXDEV)  # the client copies instead, and the copy is checked
        return self._entered(directory, name)

    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int
    ) -> None:
        """Move a name; a file that moves to the name of a blob or index must deserve it.

        Raises:
            InvalidContent: it does not; everything is as before.
        """
        old = (self._view.tree[parent], name)
        new = (self._view.tree[new_parent], new_name)
        if flags & ~RENAME_NOREPLACE:
            raise refused(errno.EINVAL)
        if flags & RENAME_NOREPLACE and self._exists(new):
            raise refused(errno.EEXIST)
        found, place = self._view.peek(*old), self._view.place_for(*new)
        with looked_up():
            await self._rename(found, old, new, place)

    async def _rename(self, found: Found, old: Name, new: Name, place: Place) -> None:
        content = found.content
        if isinstance(content, Directory):
            self._rename_directory(old, new)
            return
        try:
            if place is Place.BLOB:
                await self._rename_to_blob(content, old, new)
            elif place in (Place.INDEX, Place.MARKER):
                await self._rename_to_guarded(found, old, new, place)
            else:
                self._rename_to_plain(content, old, new, place)
        except InvalidContent as error:
            path = os.fsdecode(new[0].child(new[1]))
            log.warning("refused %s: %s", path, error)
            self._view.counters.add("refused", _size(found))
            raise
        if place is Place.BLOB:
            await self._generations.settled()

    def _rename_directory(self, old: Name, new: Name) -> None:
        if role_of(old[0].name, old[1]) != role_of(new[0].name, new[1]):
            raise refused(errno.EXDEV)  # its files would become blobs unread
        replaced = self._number(new)
        if any(above == replaced for above, _ in self._view.staged):
            raise refused(errno.ENOTEMPTY)
        source, target = old[0].child(old[1]), new[0].child(new[1])
        self._end(new, lambda: self._view.files.rename(source, target))
        self._view.tree.move(*old, *new)
        if replaced is not None and replaced != self._number(new):
            self._view.forget_directory(replaced)

    async def _rename_to_blob(self, content: Content, old: Name, new: Name) -> None:
        digest, path = self._view.digest(*new), new[0].child(new[1])
        if isinstance(content, Staged):
            async with current(content):
                blob = self._view.gate.blob
                alone = await self._view.blocking(blob, content.staging, digest, path)
                content.staging.unsettled = False
                content.is_moved = content.staging.is_copied_next  # else no write is accepted
            self._generations.drop(content)
            # As below: what the kernel lets others write to is no blob.
            self._renamed(new, content.node if alone else None, Blob(digest))
        elif isinstance(content, Ordinary):
            node = self._view.tree.find(*old)
            alone = await self._adopt(content, old, digest, path)
            # What others may still write to is no blob: the kernel is to look again.
            if node is not None and self._view.tree.find(*old) is node:
                self._view.tree.unname(*old)
            self._renamed(new, node if alone else None, Blob(digest))
        elif isinstance(content, Blob) and content.digest == digest:
            await self._view.blocking(self._view.files.link_blob, digest, path)
            self.unlink(old[0].inode, old[1])
            self._renamed(new, None, content)
        else:
            raise InvalidContent(f"it is no file with the digest {digest}")

    async def _adopt(self, content: Ordinary, old: Name, digest: Digest, path: bytes) -> bool:
        async with content.lock:
            source = old[0].child(old[1])
            file = self._view.files.open(source, os.O_RDONLY)
            try:
                if content.is_taken or os.fstat(file).st_ino != content.inode:
                    raise stale()
                known = None if content.is_lost else content.digest
                adopt = self._view.gate.adopt
                alone = await self._view.blocking(adopt, file, known, digest, path)
                content.is_taken = True
            except OSError:
                self._view.lose(content)  # perhaps: then it is copied the next time
                raise
            finally:
                os.close(file)
            self._unlink_if(old, content.inode)
            return alone

    def _unlink_if(self, name: Name, inode: int) -> None:
        """End a file's name, unless it was given to another file meanwhile."""
        path = name[0].child(name[1])
        try:
            if self._view.files.stat(path).st_ino == inode:
                self._view.files.unlink(path)
        except FileNotFoundError:
            return

    async def _rename_to_guarded(self, found: Found, old: Name, new: Name, place: Place) -> None:
        content = found.content
        if isinstance(content, Staged):
            async with current(content):
                await self._commit(content.staging.document(), new, place)
                content.staging.unsettled, content.is_moved = False, True
        elif isinstance(content, Ordinary):
            async with content.lock:
                await self._copy_guarded(old[0].child(old[1]), new, place)
                content.is_taken = True
        else:
            await self._copy_guarded(old[0].child(old[1]), new, place)
        self._generations.move(*old)
        with suppress(FileNotFoundError):
            if _is_same(self._view.peek(*old), found):  # else another was committed meanwhile
                self.unlink(old[0].inode, old[1])
        self._view.tree.unname(*new)

    async def _copy_guarded(self, source: bytes, new: Name, place: Place) -> None:
        """Make an index or marker of another layout's: never one file, they change apart."""
        raw = await self._view.blocking(self._view.gate.read, source, MAX_DOCUMENT + 1)
        await self._commit(raw, new, place)

    async def _commit(self, raw: bytes, new: Name, place: Place) -> None:
        if place is Place.MARKER:
            await self._view.blocking(self._view.gate.marker, raw, new[0].path)
        else:
            await self._generations.put_index(raw, *new)

    def _rename_to_plain(self, content: Content, old: Name, new: Name, place: Place) -> None:
        if place is Place.TEMPORARY:
            if not isinstance(content, Staged) or content.staging.place is not place:
                raise refused(errno.EXDEV)  # the client copies instead, and the copy is checked
            self._move_staged(content, old, new)
            return
        if isinstance(content, (Staged, Blob)):
            # The kernel would go on to believe that the new name, too, is a blob's.
            raise refused(errno.EXDEV)
        self._view.files.rename(old[0].child(old[1]), new[0].child(new[1]))
        self._view.tree.move(*old, *new)
        if isinstance(content, Guarded):
            self._generations.move(*old)

    def _move_staged(self, content: Staged, old: Name, new: Name) -> None:
        replaced = self._view.staged.get((new[0].inode, new[1]))
        if replaced is not None and replaced is not content:
            self._generations.drop(replaced)
        del self._view.staged[old[0].inode, old[1]]
        self._view.staged[new[0].inode, new[1]] = content
        self._view.tree.hold(new[0])
        self._view.tree.let_go(content.parent)
        content.parent, content.name = new
        self._view.tree.move(*old, *new)

    def _renamed(self, new: Name, node: Node[Content] | None, content: Content) -> None:
        self._view.traces.write(*new)
        if node is not None:
            node.content = content
            self._view.tree.name(node, *new)

    def _end(self, name: Name, call: Callable[[], None]) -> None:
        """Make a call that removes a directory, if there is one, so that who has it open may ask.

        A shell goes on to ask what its working directory is.
        """
        node = self._view.tree.find(*name)
        content = node.content if node is not None else None
        last = self._view.status(node) if node and isinstance(content, Directory) else None
        call()
        if isinstance(content, Directory):
            content.last = last

    def _entered(self, parent: Node[Content], name: bytes) -> Attributes:
        return self._view.introduce(parent, name, self._view.peek(parent, name))

    def _number(self, name: Name) -> int | None:
        try:
            return self._view.numbers.number(*name, self._view.peek(*name))
        except FileNotFoundError:
            return None

    def _exists(self, name: Name) -> bool:
        try:
            self._view.peek(*name)
        except FileNotFoundError:
            return False
        return True


def _is_same(now: Found, before: Found) -> bool:
    """Tell whether a name is still what it was: not another generation, or file."""
    if now.status is None or before.status is None:
        return now.content is before.content
    return (now.inode, now.status.st_mtime_ns) == (before.inode, before.status.st_mtime_ns)


def _size(found: Found) -> int:
    if isinstance(found.content, Staged):
        return found.content.staging.size
    return found.status.st_size if found.status is not None else 0
