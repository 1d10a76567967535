"""What of a store is neither blob nor image: directories, the index database, remotes.json."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ...oci.digest import HEX_LENGTHS
from ...oci.errors import InvalidContent
from ...oci.image_layout import BLOBS, INDEX, MARKER
from ..remotes import FILE as REMOTES
from ..store import Store
from .findings import Finding, Kind, Severity


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory below the layout root that is a layout, or the remains of one."""

    name: PurePosixPath
    has_index: bool
    has_marker: bool


def directory_of(store: Store, name: PurePosixPath) -> Directory:
    """Return the directory of one layout, without a look at others."""
    path = store.layouts / name
    return Directory(name, *(stat.S_ISREG(_mode(path / file)) for file in (INDEX, MARKER)))


def directories(store: Store) -> Iterator[Directory]:
    """Yield every directory that has a file of a layout, or blobs, or that cannot be listed."""
    waiting = [PurePosixPath()]
    while waiting:
        name = waiting.pop()
        try:
            with os.scandir(store.layouts / name) as entries:
                found = sorted(entries, key=lambda entry: entry.name, reverse=True)
        except (FileNotFoundError, NotADirectoryError):
            continue  # removed meanwhile
        except OSError:
            yield Directory(name, has_index=False, has_marker=False)
            continue  # its check tells why
        files = {e.name for e in found if e.is_file(follow_symlinks=False)}
        below = [e.name for e in found if e.is_dir(follow_symlinks=False)]
        directory = Directory(name, INDEX in files, MARKER in files)
        is_layout = directory.has_index or directory.has_marker
        if is_layout or (BLOBS in below and _has_algorithm(store.layouts / name / BLOBS)):
            yield directory
        waiting += [name / each for each in below if not (directory.has_index and each == BLOBS)]


def check_rest(store: Store) -> Iterator[Finding]:
    """Yield what is wrong with the files of a store that are neither blobs nor layouts."""
    try:
        store.remotes.list()
    except InvalidContent as error:
        yield Finding(Severity.ERROR, Kind.DATABASE, REMOTES, str(error))
    yield from _check_database(store)


def _check_database(store: Store) -> Iterator[Finding]:
    import sqlite3

    path = store.path / "index.sqlite"
    if not path.exists():
        return
    words = list[str]()
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=1.0)
        try:
            words = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(3)")]
        finally:
            connection.close()
    except sqlite3.Error as error:
        words = [str(error)]
    for text in words:
        if text != "ok":
            said = f"{text}; it is a cache, and the next command that uses it begins a new one"
            yield Finding(Severity.WARNING, Kind.DATABASE, path.name, said)
    if words == ["ok"]:
        for what, broken in (
            ("checksums", store.checksums.broken()),
            ("layers", store.layers.broken()),
        ):
            if not broken:
                continue
            said = f"{broken} {what} whose seal is broken, which nobody believes"
            yield Finding(Severity.NOTE, Kind.DATABASE, path.name, said)


def _mode(path: Path) -> int:
    try:
        return path.lstat().st_mode
    except OSError:
        return 0


def _has_algorithm(blobs: os.PathLike[str]) -> bool:
    with suppress(OSError):
        return not set(os.listdir(blobs)).isdisjoint(HEX_LENGTHS)
    return False
