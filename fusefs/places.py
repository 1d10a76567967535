"""What a name means on the mount, by where it stands: pure, no I/O."""

from __future__ import annotations

import os
import re
from enum import Enum, auto
from pathlib import PurePosixPath

from ..oci.digest import CANONICAL, HEX_LENGTHS, Digest, is_encoded

_ALGORITHMS = {name.encode(): name for name in HEX_LENGTHS}
_SPARE = b".ocistow-"  # how the disk calls what is about to replace something


class Place(Enum):
    """The rules that hold for a file with some name."""

    ORDINARY = auto()  # a plain file: caches, tarballs, temporary files in an image's root
    BLOB = auto()  # blobs/<algorithm>/<hex>: content must hash to its name
    TEMPORARY = auto()  # any other name below blobs/: a blob that has no name yet
    INDEX = auto()  # index.json: replaced whole, and only by a valid one
    MARKER = auto()  # oci-layout: likewise


def place_of(above: bytes, parent: bytes, name: bytes) -> Place:
    """Return what a file `name` in the directory `above/parent` is; both are single names."""
    if parent in _ALGORITHMS and above == b"blobs":
        is_blob = is_encoded(_ALGORITHMS[parent], name.decode("latin-1"))
        return Place.BLOB if is_blob else Place.TEMPORARY
    if parent == b"blobs":
        return Place.TEMPORARY
    if name == b"index.json":
        return Place.INDEX
    if name == b"oci-layout":
        return Place.MARKER
    return Place.ORDINARY


def digest_of(parent: bytes, name: bytes) -> Digest:
    """Return the digest that a name in a BLOB place is."""
    return Digest(_ALGORITHMS[parent], name.decode("ascii"))


def digest_in(parent: bytes, name: bytes) -> Digest | None:
    """Return the digest that is part of the name of a temporary file, if there is one."""
    algorithm = _ALGORITHMS.get(parent, CANONICAL)
    found = re.search(rb"[0-9a-f]{%d}" % HEX_LENGTHS[algorithm], name)
    return Digest(algorithm, found[0].decode("ascii")) if found else None


def role_of(parent: bytes, name: bytes) -> bytes:
    """Return what a directory `name` in `parent` does for the files in it; empty for nothing.

    Moving a directory to a name with another role would turn files into blobs unread.
    """
    if name == b"blobs" or (parent == b"blobs" and name in _ALGORITHMS):
        return name
    return b"blobs/" if parent == b"blobs" else b""


def has_rules(directory: PurePosixPath) -> bool:
    """Tell whether files in a directory below the layout root are what its name makes of them."""
    above, name = (b"", b"", *map(os.fsencode, directory.parts))[-2:]
    return bool(role_of(above, name))


def is_hidden(name: bytes) -> bool:
    """Tell whether a name on disk is the store's own affair."""
    return name.startswith(_SPARE)
