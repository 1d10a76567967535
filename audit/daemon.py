"""What a Docker daemon says that images cost, for those that the store has, too.

What its numbers are worth is in docs/du.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath

from ..oci.digest import Digest
from ..oci.document import Object, inner, inners, string, texts
from ..oci.errors import InvalidContent, NotFound
from ..oci.graph import walk
from ..oci.manifest import Manifest
from ..publish.docker.engine import Engine
from ..store.store import Store
from .usage import Cost, Usage

TIMEOUT = 900.0  # seconds; before API version 1.42 it walks all volumes, too

_DANGLING = "<none>"


@dataclass(frozen=True, slots=True)
class Held:
    """An image of a daemon, as it accounts for it. Numbers are bytes.

    Attributes:
        identifier: the digest of its config, or of its manifest or index in containerd's store.
        names: those it has, as docker writes them.
        digests: of the manifests that it was pulled or pushed by.
        size: what it takes, layers that others have included; unpacked, and in containerd's
            store packed as well.
        shared: the part of `size` that other images have; None if it does not say.
    """

    identifier: Digest
    names: tuple[str, ...]
    digests: frozenset[Digest]
    size: int
    shared: int | None

    @property
    def unique(self) -> int | None:
        """The part of `size` that no other image has; below zero if its account is wrong."""
        return None if self.shared is None else self.size - self.shared


@dataclass(frozen=True, slots=True)
class Account:
    """All images of a daemon, and what they take together by its account."""

    daemon: str
    images: tuple[Held, ...]
    total: int


@dataclass(frozen=True, slots=True)
class Row:
    """An image that both have.

    Attributes:
        cost: what it costs in the store.
        images: what it is in the daemon; of several platforms there may be several.
    """

    cost: Cost
    images: tuple[Held, ...]

    @property
    def size(self) -> int:
        """What it takes by the daemon's account."""
        return sum(image.size for image in self.images)

    @property
    def unique(self) -> int | None:
        """The part of `size` that no other image of the daemon has; None if it does not say."""
        parts = [image.unique for image in self.images]
        return None if None in parts else sum(filter(None, parts))


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a daemon says about images of the store.

    Attributes:
        rows: the images that both have, what is largest by its account first.
        together: what these take in the store, each byte once.
    """

    account: Account
    rows: tuple[Row, ...]
    together: int

    @property
    def others(self) -> int:
        """How many images only the daemon has."""
        known = {image.identifier for row in self.rows for image in row.images}
        return len({image.identifier for image in self.account.images} - known)


def compare(store: Store, usage: Usage, account: Account) -> Comparison:
    """Put a daemon's account beside what images cost here.

    An image is the same if it has the same config or the same manifest. What is malformed, or
    lacks its manifest, is no image of the daemon.
    """
    known: dict[Digest, list[Held]] = {}
    for image in account.images:
        for digest in {image.identifier, *image.digests}:
            known.setdefault(digest, []).append(image)
    rows: list[Row] = []
    for cost in usage.layouts:
        same: dict[Digest, Held] = {}
        with suppress(InvalidContent, NotFound):
            for digest in _digests(store, cost.name):
                same |= {image.identifier: image for image in known.get(digest, ())}
        if same:
            rows.append(Row(cost, tuple(same.values())))
    rows.sort(key=lambda row: (-row.size, str(row.cost.name)))
    names = {row.cost.name for row in rows}
    places = {place for place, name in enumerate(usage.names) if name in names}
    together = sum(s.size for s in usage.shares if not places.isdisjoint(s.layouts))
    return Comparison(account, tuple(rows), together)


def account(engine: Engine) -> Account:
    """Ask a daemon what its images cost.

    Raises:
        RegistryError: it refuses, or does not answer.
        InvalidContent: its answer is malformed.
    """
    what = f"disk usage of {engine.name}"
    document = engine.usage()
    usage = inner(document, "ImageUsage", what)  # since API version 1.52
    images = inners(usage, "Items", what) if usage else inners(document, "Images", what)
    total = usage.get("TotalSize", 0) if usage else document.get("LayersSize", 0)
    return Account(
        engine.name,
        tuple(_held(image, f"an image in {what}") for image in images),
        _size(total, what),
    )


def _digests(store: Store, name: PurePosixPath) -> Iterable[Digest]:
    """Yield what a daemon may call the images of a layout: roots, manifests and configs."""
    layout = store.layout(name)
    for root in layout.index().manifests:
        for node in walk(root, layout.read):
            if node.document is not None:
                yield node.descriptor.digest
            if isinstance(node.document, Manifest):
                yield node.document.config.digest


def _held(image: Object, what: str) -> Held:
    shared = image.get("SharedSize")
    return Held(
        Digest.parse(string(image, "Id", what)),
        tuple(tag for tag in texts(image, "RepoTags", what) if not tag.startswith(_DANGLING)),
        frozenset(
            Digest.parse(name.rpartition("@")[2])
            for name in texts(image, "RepoDigests", what)
            if not name.startswith(_DANGLING)
        ),
        _size(image.get("Size"), what),
        None if shared in (None, -1) else _size(shared, what),
    )


def _size(value: object, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 1 << 63:
        raise InvalidContent(f"{what} has a size that is no number of bytes")
    return value
