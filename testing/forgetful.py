"""A disk that loses power, after any call."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from .disk import WatchedDisk

MIXES = 4  # random states a crash point gets beside the three certain ones
State: TypeAlias = "dict[str, State | Bytes | Path]"  # below a directory after a crash; links


@dataclass(frozen=True, slots=True)
class Bytes:
    """A file after a crash; names with the same number are hard links of one file."""

    number: int
    content: bytes


@dataclass(slots=True)
class _File:
    """The bytes that survive power loss, and those that readers see."""

    number: int
    synced: bytes
    content: bytes

    def settle(self) -> None:
        self.synced = self.content


@dataclass(slots=True)
class _Folder:
    """What each name has stood for since the last sync: the synced node first, the present last.

    A path is that of a symbolic link.
    """

    names: dict[str, list[_File | _Folder | Path | None]] = field(
        default_factory=dict[str, "list[_File | _Folder | Path | None]"]
    )

    def present(self, name: str) -> _File | _Folder | Path | None:
        return self.names[name][-1] if name in self.names else None

    def settle(self) -> None:
        self.names = {n: [was[-1]] for n, was in self.names.items() if was[-1] is not None}

    def change(self, name: str, node: _File | _Folder | Path | None) -> None:
        self.names.setdefault(name, [None]).append(node)


class ForgetfulDisk(WatchedDisk):
    """A disk that remembers what power loss could leave of `root` after each call.

    The model promises no more than POSIX: the bytes of a file survive if the
    file was synced after they were written, a name if its directory was synced after
    the name changed, and nothing else does; but everything may. A rename is
    atomic at the new name. What lies below `root` at the start counts as synced.
    """

    def __init__(self, root: Path, seed: int = 0) -> None:
        self._nodes: dict[tuple[int, int], _File | _Folder] = {}
        self._number = 0
        self._random = random.Random(seed)
        self._root = self._scan(root)
        self.calls: list[str] = ["start"]
        self._crashes: list[list[State]] = [self._states()]

    def states(self, under: Path, first: int = 0) -> Iterator[tuple[int, Path]]:
        """Yield every distinct state that a crash could leave, as a directory.

        With it comes the number of a call after which it could happen; `first` leaves
        out crashes before that call has returned.
        """
        seen: list[State] = []
        for number, crashes in enumerate(self._crashes[first:], first):
            for state in crashes:
                if state not in seen:
                    path = under / str(len(seen))
                    seen.append(state)
                    _write(state, path, {})
                    yield number, path

    def distrust(self, file: Path) -> None:
        """Count the bytes and the name of a file as not synced, as after a foreign write."""
        node = self._nodes[_key(file.stat())]
        folder = self._nodes[_key(file.parent.stat())]
        if not isinstance(node, _File) or not isinstance(folder, _Folder):
            raise TypeError(f"{file} is no file in a directory")
        node.synced = b""
        folder.names[file.name] = [None, node]

    def create(self, directory: int, mode: int | None = 0o444) -> int:
        """Create, and start a file with no bytes."""
        file = super().create(directory, mode)
        self._nodes[_key(os.fstat(file))] = self._new_file(b"")
        self._remember("create")
        return file

    def write(self, file: int, data: bytes | memoryview, offset: int) -> None:
        """Write; a crash now may lose the bytes."""
        super().write(file, data, offset)
        self._changed(file)
        self._remember("write")

    def copy_range(self, source: int, offset: int, file: int, at: int, length: int) -> int:
        """Copy; a crash now may lose the bytes."""
        count = super().copy_range(source, offset, file, at, length)
        self._changed(file)
        self._remember("copy_range")
        return count

    def truncate(self, file: int, length: int) -> None:
        """Truncate; a crash now may bring the bytes back."""
        super().truncate(file, length)
        self._changed(file)
        self._remember("truncate")

    def clone(self, source: int, file: int) -> bool:
        """Clone; a crash now may lose the bytes."""
        cloned = super().clone(source, file)
        self._changed(file)
        self._remember("clone")
        return cloned

    def sync(self, file: int) -> None:
        """Sync; no crash from now on loses what there is."""
        super().sync(file)
        node = self._nodes.get(_key(os.fstat(file)))  # None: above the root
        if node is not None:
            node.settle()
        self._remember("sync")

    def settle(self, directory: int) -> None:
        """Sync everything."""
        super().settle(directory)
        for node in self._nodes.values():
            node.settle()
        self._remember("settle")

    def name(self, file: int, directory: int, name: str) -> bool:
        """Name; a crash now may already show the name."""
        named = super().name(file, directory, name)
        if named:
            self._folder(directory).change(name, self._node(file))
        self._remember("name")
        return named

    def link(self, source: int, name: str, directory: int, new: str) -> bool:
        """Link; a crash now may already show the name."""
        linked = super().link(source, name, directory, new)
        if linked:
            self._folder(directory).change(new, self._folder(source).present(name))
        self._remember("link")
        return linked

    def symlink(self, target: str, directory: int, name: str) -> bool:
        """Link; a crash now may already show the name."""
        linked = super().symlink(target, directory, name)
        if linked:
            self._folder(directory).change(name, Path(target))
        self._remember("symlink")
        return linked

    def rename(self, source: int, name: str, directory: int, new: str) -> None:
        """Rename; a crash now may show either name, or both."""
        super().rename(source, name, directory, new)
        self._folder(directory).change(new, self._folder(source).present(name))
        self._folder(source).change(name, None)
        self._remember("rename")

    def unlink(self, directory: int, name: str) -> None:
        """Unlink; a crash now may bring the name back."""
        super().unlink(directory, name)
        self._folder(directory).change(name, None)
        self._remember("unlink")

    def mkdir(self, directory: int, name: str) -> bool:
        """Make a directory; a crash now may lose it."""
        made = super().mkdir(directory, name)
        if made:
            folder = _Folder()
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            self._nodes[_key(status)] = folder
            self._folder(directory).change(name, folder)
        self._remember("mkdir")
        return made

    def rmdir(self, directory: int, name: str) -> bool:
        """Remove a directory; a crash now may bring it back."""
        removed = super().rmdir(directory, name)
        if removed:
            self._folder(directory).change(name, None)
        self._remember("rmdir")
        return removed

    def _scan(self, path: Path) -> _Folder:
        folder = _Folder()
        self._nodes[_key(path.stat())] = folder
        for entry in path.iterdir():
            node: _File | _Folder | Path
            if entry.is_symlink():
                node = entry.readlink()
            elif entry.is_dir():
                node = self._scan(entry)
            else:
                known = self._nodes.get(_key(entry.stat()))
                node = known or self._new_file(entry.read_bytes())
                self._nodes[_key(entry.stat())] = node
            folder.names[entry.name] = [node]
        return folder

    def _new_file(self, content: bytes) -> _File:
        self._number += 1
        return _File(self._number, content, content)

    def _node(self, file: int) -> _File | _Folder:
        return self._nodes[_key(os.fstat(file))]

    def _folder(self, directory: int) -> _Folder:
        node = self._node(directory)
        if not isinstance(node, _Folder):
            raise TypeError(f"descriptor {directory} is no directory")
        return node

    def _changed(self, file: int) -> None:
        node = self._node(file)
        if not isinstance(node, _File):
            raise TypeError(f"descriptor {file} is no file")
        node.content = os.pread(file, os.fstat(file).st_size, 0)

    def _remember(self, call: str) -> None:
        self.calls.append(call)
        self._crashes.append(self._states())

    def _states(self) -> list[State]:
        """Return the states of a crash now.

        Everything kept, as when only the process dies; names kept but bytes lost; names and
        bytes lost; and random mixes, in which each directory has its own odds.
        """
        states = [
            self._state(self._root, lose_names=False, lose_bytes=False),
            self._state(self._root, lose_names=False, lose_bytes=True),
            self._state(self._root, lose_names=True, lose_bytes=True),
        ]
        states += [self._state(self._root, None, None) for _ in range(MIXES)]
        return [state for i, state in enumerate(states) if state not in states[:i]]

    def _state(self, folder: _Folder, lose_names: bool | None, lose_bytes: bool | None) -> State:
        odds = self._random.choice((0, 0.5, 1))
        state: State = {}
        for name, nodes in folder.names.items():
            if lose_names is None:
                older = self._random.random() < odds
                node = self._random.choice(nodes) if older else nodes[-1]
            else:
                node = nodes[0 if lose_names else -1]
            if isinstance(node, _Folder):
                state[name] = self._state(node, lose_names, lose_bytes)
            elif isinstance(node, Path):
                state[name] = node
            elif node is not None:
                state[name] = Bytes(node.number, self._bytes(node, lose_bytes))
        return state

    def _bytes(self, file: _File, lose: bool | None) -> bytes:
        if lose is not None or file.synced == file.content:
            return file.synced if lose else file.content
        half, zeros = file.content[: len(file.content) // 2], bytes(len(file.content))
        return self._random.choice((file.synced, file.content, half, zeros))


def _key(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _write(state: State, path: Path, files: dict[int, Path]) -> None:
    """Make the directory `path` hold `state`; `files` are those that exist already."""
    path.mkdir(parents=True)
    for name, entry in state.items():
        file = path / name
        if isinstance(entry, Path):
            file.symlink_to(entry)
        elif not isinstance(entry, Bytes):
            _write(entry, file, files)
        elif (first := files.get(entry.number)) is not None:
            file.hardlink_to(first)
        else:
            file.write_bytes(entry.content)
            files[entry.number] = file
