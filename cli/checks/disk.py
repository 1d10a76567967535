"""What the file system of a store can do, by doing it with files that have no name for long."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ...fusefs.system.table import Entry, entries
from ...oci.errors import InvalidContent, NotFound
from ...oci.wording import message_of
from ...store.disk import Disk
from ...store.named_disk import NamedDisk, disk_of
from ...store.reading import open_directory
from ...store.spares import spare_name
from ...store.store import Store
from ..output import human
from .check import Check, fail, ok, warn
from .names import names

FEW_LINKS = 1000  # images with the same layer, until a copy of it is made
LITTLE = 1_000_000_000  # bytes
SCARCE = 0.05  # of all there are

_NOT_MOUNTED = "not in the table of mounts"
_SAMPLE = bytes(4096)
_NOT_KNOWN = 127  # what glibc says of file systems that it does not know, such as tmpfs


def disk(store: Path) -> Iterator[Check]:
    """Look at a store, or where it would be."""
    yield _store(store)
    there = next(above for above in (store, *store.parents) if os.path.isdir(above))
    entry = _mounted(there)
    yield ok("file system", f"{entry.kind} at {entry.path}" if entry else _NOT_MOUNTED)
    if entry and entry.kind == "ext4":
        yield names(store, there, Path(entry.source))
    try:
        directory = open_directory(there)
    except OSError as error:
        yield fail("unnamed files", message_of(error), "choose another directory: --store")
        return
    try:
        yield from _abilities(store, there, directory)
        yield from _room(there)
    finally:
        os.close(directory)


def _store(path: Path) -> Check:
    try:
        Store.open(path).close()
    except NotFound:
        taken = next(above for above in (path, *path.parents) if os.path.lexists(above))
        if not taken.is_dir():
            return fail("store", f"{taken} is not a directory", "choose another one: --store")
        return ok("store", f"none at {path} yet; `add` and `mount` make it")
    except (InvalidContent, OSError) as error:
        return fail("store", message_of(error), "choose another directory: --store")
    return ok("store", str(path))


def _mounted(path: Path) -> Entry | None:
    """Return what is mounted where a directory lies: the last one on the longest path."""
    place = path.resolve()
    over = [entry for entry in entries() if place.is_relative_to(entry.path)]
    return max(reversed(over), key=lambda entry: len(entry.path.parts), default=None)


def _abilities(store: Path, path: Path, directory: int) -> Iterator[Check]:
    if not os.access(path, os.W_OK):
        found = f"{path} may only be read"
        if path != store:
            yield fail("unnamed files", found, "no store can be made there: choose --store")
        elif os.statvfs(path).f_flag & os.ST_RDONLY:
            advice = "what changes the store needs its file system mounted with rw"
            yield warn("unnamed files", found, advice)
        else:
            advice = "what changes the store needs its owner, or root"
            yield warn("unnamed files", found, advice)
        return
    try:
        found_disk = disk_of(directory)
    except OSError as error:
        yield fail("unnamed files", message_of(error), f"write to {path}, or choose --store")
        return
    if isinstance(found_disk, NamedDisk):
        advice = "a store needs ext4, XFS, btrfs or tmpfs: --store"
        yield fail("unnamed files", "none (O_TMPFILE)", advice)
        return
    yield ok("unnamed files", "possible (O_TMPFILE)")
    yield _links(path, directory)
    yield _clones(directory)


def _links(path: Path, directory: int) -> Check:
    system = Disk()
    names = (spare_name(), spare_name())
    file = system.create(directory)
    try:
        for name in names:
            system.name(file, directory, name)
        is_shared = os.fstat(file).st_nlink == len(names)
        most = os.pathconf(path, "PC_LINK_MAX")
    except OSError as error:
        advice = "layouts share blobs by them; choose another file system: --store"
        return fail("hard links", message_of(error), advice)
    finally:
        for name in names:
            system.unlink(directory, name)
        system.close(file)
    known = most != _NOT_KNOWN
    found = f"possible{f', at most {most} of a file' if known else ''}" if is_shared else "copies"
    if not is_shared or (known and most < FEW_LINKS):
        return warn("hard links", found, "blobs that more images share are copied")
    return ok("hard links", found)


def _clones(directory: int) -> Check:
    system = Disk()
    file, copy = system.create(directory), system.create(directory)
    try:
        system.write(file, _SAMPLE, 0)
        if system.clone(file, copy):
            return ok("reflinks", "possible")
    except OSError as error:
        return warn("reflinks", message_of(error), "copies take room")
    finally:
        system.close(copy)
        system.close(file)
    return ok("reflinks", "none; what hard links cannot share is copied")


def _room(path: Path) -> Iterator[Check]:
    status = os.statvfs(path)
    free, size = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
    found = f"{human(free)} of {human(size)} free"
    if free < LITTLE or free < SCARCE * size:
        yield warn("space", found, "ocistow gc frees what no image needs")
    else:
        yield ok("space", found)
    if not status.f_files:
        yield ok("inodes", "as many as fit")
    elif status.f_favail < SCARCE * status.f_files:
        found = f"{status.f_favail} of {status.f_files} free"
        yield warn("inodes", found, "a blob takes one; ocistow gc, or a larger file system")
    else:
        yield ok("inodes", f"{status.f_favail} of {status.f_files} free")
