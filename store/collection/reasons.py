"""Why a blob stays, or since when it has no reason to."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath

from ...oci.descriptor import Descriptor
from ...oci.digest import CANONICAL, HEX_LENGTHS, Digest, is_encoded
from ...oci.errors import InvalidContent, NotFound
from ...oci.graph import children
from ...oci.manifest import Index, parse_manifest
from ..layout import Layout
from ..leases import Holder
from ..quarantine import DIRECTORY
from ..store import Store
from .catalog import Catalog, key
from .roots import mentioned_by
from .survey import directories

_START = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class Use:
    """An image that needs a blob.

    Attributes:
        name: the layout.
        way: from what its index mentions down to the blob; that alone if the way is not known,
            since it leads over a manifest of an unknown kind.
    """

    name: PurePosixPath
    way: tuple[Digest, ...]


@dataclass(frozen=True, slots=True)
class Reasons:
    """What is known of a blob.

    Attributes:
        size: of the pool's file; None if the pool lacks the blob.
        uses: the images that need it.
        holders: who leased it.
        links: layouts that have a name for it and do not mention it.
        changed: when something last touched the file, or the names in such a layout, in
            seconds since the epoch.
        is_quarantined: whether a bad file of that name was put aside.
    """

    digest: Digest
    size: int | None
    uses: tuple[Use, ...]
    holders: tuple[Holder, ...]
    links: tuple[PurePosixPath, ...]
    changed: float | None
    is_quarantined: bool

    @property
    def is_kept(self) -> bool:
        """Whether somebody needs it, however old it is."""
        return bool(self.uses or self.holders)


def resolve(store: Store, text: str) -> Digest:
    """Return the digest that a user's word means: all of it, or as much as only one blob has.

    Raises:
        InvalidContent: it is no beginning of a digest, or several blobs begin so.
        NotFound: no blob begins so.
    """
    algorithm, _, start = text.partition(":") if ":" in text else (CANONICAL, "", text)
    if is_encoded(algorithm, start):
        return Digest(algorithm, start)
    if algorithm not in HEX_LENGTHS or _START.fullmatch(start) is None:
        raise InvalidContent(f"not a digest, nor how one begins: {text[:200]!r}")
    found: list[str] = []
    with suppress(FileNotFoundError):
        names = os.listdir(store.blobs.path / algorithm)
        found = [n for n in names if n.startswith(start) and is_encoded(algorithm, n)]
    if not found:
        raise NotFound(f"a blob {algorithm}:{start}…")
    if len(found) > 1:
        raise InvalidContent(f"{len(found)} blobs begin with {algorithm}:{start}")
    return Digest(algorithm, found[0])


def reasons(store: Store, digest: Digest) -> Reasons:
    """Return what keeps a blob. Reads all indexes.

    Raises:
        InvalidContent: an index or what it reaches is malformed or absent.
    """
    catalog = Catalog(store)
    name = key(digest.algorithm, digest.encoded)
    number = catalog.number(name)
    uses: list[Use] = []
    links: list[PurePosixPath] = []
    times: list[float] = []
    for entry in directories(store):
        if entry is None:
            continue
        layout = store.layout(PurePosixPath(entry.name))
        if entry.index[0] and number in catalog.reach(entry.name, entry.raw):
            uses.append(Use(layout.name, _way(layout, entry.raw, digest)))
        elif name in entry.own:
            links.append(layout.name)
            times.append(entry.at / 1e9)
    size = None
    with suppress(NotFound):
        status = store.blobs.stat(digest)
        size = status.st_size
        times.append(status.st_ctime)
    return Reasons(
        digest,
        size,
        tuple(sorted(uses, key=lambda use: use.name)),
        store.leases.held().holders(digest),
        tuple(sorted(links)),
        max(times, default=None),
        _is_quarantined(store, digest),
    )


def _way(layout: Layout, raw: bytes, digest: Digest) -> tuple[Digest, ...]:
    for root in Index.parse(raw, f"index of {layout.name}").manifests:
        for way in _ways(layout, root, digest):
            return way
    mentioned_by(layout, raw)  # raises what is wrong with it, if that is the reason
    return (digest,)


def _ways(layout: Layout, descriptor: Descriptor, digest: Digest) -> Iterator[tuple[Digest, ...]]:
    if descriptor.digest == digest:
        yield (digest,)
    elif descriptor.is_manifest or descriptor.is_index:
        document = parse_manifest(layout.read(descriptor), descriptor)
        for child in children(document):
            for way in _ways(layout, child, digest):
                yield descriptor.digest, *way


def _is_quarantined(store: Store, digest: Digest) -> bool:
    with suppress(FileNotFoundError):
        names = os.listdir(store.path / DIRECTORY / digest.algorithm)
        return any(name.partition(".")[0] == digest.encoded for name in names)
    return False
