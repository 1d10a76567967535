"""The undo journal of dedupe: what files were like before their names became links of others.

A file of JSON lines, `STORE/dedupe/<time>.jsonl`; its format is in docs/dedupe.md. A line is on the
disk before the name that it is about changes, so that at every moment a journal has at least
what was done. What follows the first line that is no such line was never synced.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePath, PurePosixPath
from typing import Self
from urllib.parse import quote, unquote_to_bytes

from ...oci.digest import Digest
from ...oci.document import Object, parse_object, string
from ...oci.errors import InvalidContent, NotFound
from ..disk import Disk
from ..reading import open_directory, open_file

DIRECTORY = "dedupe"  # of a store
VERSION = 1

_SUFFIX, _UNDONE = ".jsonl", ".undone"
_MAX_LINE = 64 << 10  # bytes; a path has at most 4096
_MODES = 0o777  # what `dedupe` replaces has no other bits

_OTHERS = 0o022  # bits of a mode

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """A name that is about to stand for another file, and the file that it stands for.

    Attributes:
        top: the directory that dedupe was told to look below; absolute.
        path: the name, relative to that.
        digest: of the content, which was verified.
        device: st_dev of the file; with `inode` it tells which names were one file.
        links: names that the file had.
        accessed: nanoseconds since the epoch, as `modified`.
    """

    top: Path
    path: PurePosixPath
    digest: Digest
    device: int
    inode: int
    links: int
    size: int
    mode: int
    user: int
    group: int
    accessed: int
    modified: int

    def to_line(self) -> bytes:
        """Return the line that stands for this in a journal."""
        members = {
            "top": _written(self.top),
            "path": _written(self.path),
            "digest": str(self.digest),
            **{name: getattr(self, name) for name in _NUMBERS},
        }
        return json.dumps(members).encode() + b"\n"

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read a line.

        Raises:
            InvalidContent: it is not what `to_line` gives.
        """
        members = parse_object(raw, "a line")
        top, path = (_read(string(members, name, "a line")) for name in ("top", "path"))
        if not os.path.isabs(top) or not path or path.startswith("/") or ".." in path.split("/"):
            raise InvalidContent(f"not a path below a directory: {path[:200]!r}")
        digest = Digest.parse(string(members, "digest", "a line"))
        if PurePosixPath(path).parts[-2:] != (digest.algorithm, digest.encoded):
            raise InvalidContent(f"not where a layout has {digest}: {path[:200]!r}")
        numbers = {name: _number(members, name) for name in _NUMBERS}
        if numbers["mode"] & ~_MODES:
            raise InvalidContent(f"no blob has mode {numbers['mode']:o}")
        return cls(Path(top), PurePosixPath(path), digest, **numbers)


_NUMBERS = ("device", "inode", "links", "size", "mode", "user", "group", "accessed", "modified")


class Journal:
    """A journal that is being written. Not thread-safe.

    The file appears with the first lines: who changes nothing leaves none.
    """

    def __init__(self, store: Path, disk: Disk) -> None:
        self._store = store
        self._disk = disk
        self._file = -1
        self._size = 0
        self.path: Path | None = None

    def append(self, entries: Iterable[Entry]) -> None:
        """Write lines; they survive power loss when this returns."""
        lines = b"".join(entry.to_line() for entry in entries)
        if not lines:
            return
        if self._file < 0:
            self._begin()
        self._disk.write(self._file, lines, self._size)
        self._size += len(lines)
        self._disk.sync(self._file)

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            self._disk.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self) -> None:
        root = open_directory(self._store)
        try:
            self._disk.mkdir(root, DIRECTORY)
            self._disk.sync(root)  # whoever made it may have died before
            directory = open_directory(DIRECTORY, root)
        finally:
            os.close(root)
        try:
            self._file = self._disk.create(directory, 0o600)
            header = json.dumps({"type": "dedupe", "version": VERSION}).encode() + b"\n"
            self._disk.write(self._file, header, 0)
            self._disk.sync(self._file)
            self._size = len(header)
            name = _new_name()
            while not self._disk.name(self._file, directory, name):
                name = _new_name()
            self._disk.sync(directory)
            self.path = self._store / DIRECTORY / name
        finally:
            os.close(directory)


def journals(store: Path) -> list[Path]:
    """Return the journals of a store that were not undone, the oldest first."""
    try:
        names = os.listdir(store / DIRECTORY)
    except FileNotFoundError:
        return []
    return [store / DIRECTORY / name for name in sorted(names) if name.endswith(_SUFFIX)]


def entries(path: Path) -> Iterator[Entry]:
    """Yield what a journal has, in the order of its writing.

    Raises:
        NotFound: there is no such file.
        InvalidContent: it is no journal, or one of a version that we do not know; or others could
            have written it, and say with it whose a file shall be.
    """
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        file = open_file(path.name, directory)
    except FileNotFoundError:
        raise NotFound(path) from None
    finally:
        os.close(directory)
    with open(file, "rb") as stream:
        status = os.fstat(file)
        if status.st_uid not in (0, os.geteuid()) or status.st_mode & _OTHERS:
            raise InvalidContent(f"{path} is user {status.st_uid}'s, or others can write to it")
        header = parse_object(stream.readline(_MAX_LINE), str(path))
        if (header.get("type"), header.get("version")) != ("dedupe", VERSION):
            raise InvalidContent(f"{path} is no journal of version {VERSION}")
        number = 1
        while raw := stream.readline(_MAX_LINE):
            number += 1
            try:
                entry = Entry.parse(raw if raw.endswith(b"\n") else b"")
            except InvalidContent:
                log.warning("%s: ends before line %d, which is no whole one", path, number)
                return
            yield entry


def close_journal(path: Path, disk: Disk) -> Path:
    """Rename a journal that was undone to the end, so that the one before it is next."""
    done = path.with_suffix(_UNDONE)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        disk.rename(directory, path.name, directory, done.name)
        disk.sync(directory)
    finally:
        os.close(directory)
    return done


def _new_name() -> str:
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}{_SUFFIX}"


def _written(path: PurePath) -> str:
    """Return a path, which may be no text, as a URI would have it."""
    return quote(os.fsencode(path))


def _read(text: str) -> str:
    return os.fsdecode(unquote_to_bytes(text))


def _number(members: Object, name: str) -> int:
    value = members.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 1 << 64:
        raise InvalidContent(f"a line has no number {name}")
    return value
