"""What ten million images take, where, and at how many names each thing breaks: arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .inputs import GB, MONTH, Fleet, Measured, Prices, Tier

LINKS = 65_000  # names of an inode of ext4
_BLOCK = 4096
_NAME = 72  # bytes of a directory's entry with a name of 64 letters
_FULL = 0.40  # of a tree of names when the first of its nodes is full: measured


@dataclass(frozen=True, slots=True)
class Content:
    """What a fleet's images are, once each.

    Attributes:
        blobs: how many, documents too.
        size: bytes.
        apart: bytes, had each image its own copy of everything.
        shared: bytes that images of different applications have in common.
    """

    blobs: int
    size: float
    apart: float
    shared: float


@dataclass(frozen=True, slots=True)
class Limit:
    """Something that ends, or that nobody waits for any longer.

    Attributes:
        names: from how many on; infinite if never.
        what: breaks.
        then: helps.
    """

    names: float
    what: str
    then: str


def content(fleet: Fleet) -> Content:
    """Return what a tier, or one store, has of a fleet after each blob is kept once."""
    versions = fleet.stacks * fleet.run_versions
    sets = fleet.applications * fleet.dependency_versions
    shared = versions * (fleet.run + fleet.runtime)
    by_application = sets * fleet.dependencies + fleet.applications * fleet.constant
    size = shared + by_application + fleet.images * (fleet.own + fleet.documents)
    run_layers, runtime_layers, changing = 4, 1, 1
    constant_layers = fleet.layers - run_layers - runtime_layers - changing - 1
    blobs = (
        versions * (run_layers + runtime_layers)
        + sets
        + fleet.applications * constant_layers
        + fleet.images * (changing + 2)
    )
    return Content(blobs, size, fleet.images * fleet.whole, shared)


def entries(block: int = _BLOCK, name: int = _NAME) -> int:
    """Return how many names fit in one directory of ext4 without `large_dir`.

    Its tree has two levels above its leaves. Names are spread by hash, and a full node cannot be
    divided once the root is full: with blocks of 1, 2 and 4 KiB a disk was "full" after 93,846,
    699,951 and 5,602,201 names of 64 letters.
    """
    root, node, leaf = (block - 40) // 8, (block - 16) // 8, (block - 12) // name
    return int(root * node * leaf * _FULL)


def copies(names: float) -> int:
    """Return the files that a blob with so many names needs in a store on ext4."""
    return max(1, math.ceil(names / LINKS))


def limits(fleet: Fleet, measured: Measured, *, memory: float = 64 * GB) -> list[Limit]:
    """Return at how many names each thing of a single machine breaks, the first one first.

    `memory` is what the machine has.
    """
    made = content(fleet)
    blobs, size = made.blobs / fleet.images, made.size / fleet.images
    a_day = fleet.images * 86_400 / verification(made, measured)
    found = [
        Limit(60 / measured.collect, "`gc` looks for a minute", "run it at night, or shard"),
        Limit(
            LINKS * fleet.stacks,
            "a run image's layer has 65,000 names (EMLINK)",
            "nothing to do: `ocistow` begins another copy of it",
        ),
        Limit(
            memory / (measured.inode * measured.inodes),
            "inodes no longer fit in memory: a walk reads the disk, three times as long",
            "more memory, or shard",
        ),
        Limit(
            entries() / blobs,
            "`blobs/sha256` is full (ENOSPC with space left)",
            "`tune2fs -O large_dir`, XFS, or shard",
        ),
        Limit(
            memory / measured.usage_memory,
            "`du` does not fit in memory",
            "ask for names (`du NAME`), or shard",
        ),
        Limit(
            a_day,
            "`verify` of all takes more than a day",
            "`--read-data-subset 5%` each night",
        ),
        Limit(16e12 / size, "the store has 16 TB: one large disk", "a registry tier"),
        Limit(
            2**32 / measured.inodes,
            "ext4 has no more inodes",
            "XFS, or shard",
        ),
    ]
    return sorted(found, key=lambda limit: limit.names)


def verification(made: Content, measured: Measured) -> float:
    """Return the seconds in which one core reads everything again."""
    return made.size / measured.verify_rate + made.blobs * measured.verify_blob


def refilling(fleet: Fleet, measured: Measured, tier: Tier) -> float:
    """Return the seconds in which an empty tier takes all images again, if requests are the limit.

    The first image of an application is a first push, the others are next builds.
    """
    again = fleet.images - fleet.applications
    requests = fleet.applications * measured.first_push_requests + again * measured.push_requests
    return requests * measured.request / tier.servers


def shared_out(fleet: Fleet, shards: int) -> float:
    """Return the bytes of a tier whose namespaces are shared out to so many registries.

    What images of different applications share, each registry has.
    """
    made = content(fleet)
    return made.size + (shards - 1) * made.shared


@dataclass(frozen=True, slots=True)
class Bill:
    """What a month costs, in dollars."""

    stored: float
    writes: float
    reads: float
    servers: float
    disks: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.stored + self.writes + self.reads + self.servers + self.disks


def bill(fleet: Fleet, tier: Tier, prices: Prices, *, reads: float, stored: float) -> Bill:
    """Return what a month costs, with `reads` of blobs a second and `stored` bytes."""
    pushed = 3  # the changed layer, the config, the manifest
    return Bill(
        stored=stored / GB * prices.stored,
        writes=fleet.builds * MONTH * pushed * tier.writes * prices.write,
        reads=reads * MONTH * prices.read,
        servers=tier.servers * prices.core,
        disks=fleet.nodes * fleet.disk / GB * prices.disk,
    )
