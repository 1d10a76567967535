"""How many names the pool's directory can still take: ext4 alone has a limit, see docs/scale.md."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from ...oci.image_layout import BLOBS
from ..output import human
from .check import Check, ok, warn

MUCH = 0.1  # of what a directory can have; it may be full at half, since blocks fill unevenly

_MAGIC = struct.Struct("<H")
_FEATURES = struct.Struct("<I")
_SUPERBLOCK, _SUPERBLOCK_SIZE = 1024, 1024  # bytes
_MAGIC_AT, _INCOMPATIBLE_AT = 0x38, 0x60
_EXT4, _LARGE_DIR = 0xEF53, 0x4000


def names(store: Path, there: Path, device: Path) -> Check:
    """Look at the largest directory of a pool, which is to be or lies `there`, on an ext4."""
    sizes = [path.stat().st_size for path in (store / BLOBS).glob("*/")]
    return judged(max(sizes, default=0), os.statvfs(there).f_bsize, has_large_dir(device))


def judged(size: int, block: int, large: bool | None) -> Check:
    """Tell how full a directory of `size` bytes is, where blocks have `block` bytes."""
    name = "pool directory"
    if large:
        return ok(name, "takes any number of blobs (large_dir)")
    most = (block // 8) ** 2 * block  # two levels of blocks with entries of 8 bytes above the names
    found = f"{human(size)} of {human(most)}, full at half of it"
    if size < MUCH * most:
        return ok(name, found)
    advice = 'then "No space left on device": tune2fs -O large_dir DEVICE while it is not mounted'
    if large is None:
        advice += "; root is told whether it has that"
    return warn(name, found, advice)


def has_large_dir(device: Path) -> bool | None:
    """Tell whether an ext4 has the feature; None if its device may not be read.

    Source: Linux, Documentation/filesystems/ext4/super.rst.
    """
    try:
        with device.open("rb") as file:
            found = os.pread(file.fileno(), _SUPERBLOCK_SIZE, _SUPERBLOCK)
    except OSError:
        return None
    if len(found) < _SUPERBLOCK_SIZE or _MAGIC.unpack_from(found, _MAGIC_AT) != (_EXT4,):
        return None
    (features,) = _FEATURES.unpack_from(found, _INCOMPATIBLE_AT)
    return bool(features & _LARGE_DIR)
