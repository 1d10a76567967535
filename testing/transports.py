"""A transport under test: what it can do, and how images go to its other side and come back."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from ..oci.digest import Digest
from ..oci.errors import NotFound
from ..oci.manifest import Manifest, parse_manifest
from ..oci.platform import Platform
from ..oci.reference import Reference
from ..publish.access import Access
from ..publish.copy import Copied, copy
from ..publish.layout import LayoutSource, StoreSink, StoreSource
from ..publish.sink import Sink
from ..publish.source import Source, read_document
from ..publish.transports import open_sink, open_source
from ..store.store import Store
from .images import GeneratedImage

NAME = "app"


class Peer(Protocol):
    """The other side of a transport, where images have names such as `app`.

    Attributes:
        here: a store of this side, for what sources and sinks have to remember.
    """

    here: Store

    def sink(self, name: str) -> AbstractContextManager[Sink]:
        """Open a name to be given."""
        ...

    def source(self, name: str, platform: Platform | None = None) -> AbstractContextManager[Source]:
        """Open an image that may be there."""
        ...


@dataclass
class WordPeer:
    """A peer that the words of the command line lead to.

    Attributes:
        word: returns the word for a name.
    """

    word: Callable[[str], str]
    here: Store
    access: Access | None = None

    def sink(self, name: str) -> AbstractContextManager[Sink]:
        """Open the word as a sink."""
        return open_sink(self.word(name), self.here, access=self.access)

    def source(self, name: str, platform: Platform | None = None) -> AbstractContextManager[Source]:
        """Open the word as a source."""
        return open_source(self.word(name), self.here, platform=platform, access=self.access)


@dataclass
class StorePeer:
    """A store as the other side."""

    store: Store
    here: Store

    @contextmanager
    def sink(self, name: str) -> Generator[Sink]:
        """Open a name of the store."""
        yield StoreSink(self.store, Reference.parse(name))

    @contextmanager
    def source(self, name: str, platform: Platform | None = None) -> Generator[Source]:
        """Open an image of the store."""
        yield StoreSource(self.store.layout(Reference.parse(name).path), platform)


@dataclass(frozen=True)
class Kind:
    """A transport under test.

    Attributes:
        name: for the test's identifier.
        open: makes an empty peer below a directory, alive inside the block.
        keeps: what comes back bit for bit: the manifest with all below it, or the config.
        remembers: whether a blob that is there need not be sent again.
        indexes: whether it takes an image for several platforms whole.
        artifacts: whether it takes what is no image.
        loses: whether it says that something is not kept.
        references: whether names are references, of which some are digests.
        names_digests: whether such a name can be given.
    """

    name: str
    open: Callable[[Path], AbstractContextManager[Peer]]
    keeps: Literal["manifest", "config"] = "manifest"
    remembers: bool = True
    indexes: bool = True
    artifacts: bool = True
    loses: bool = False
    references: bool = True
    names_digests: bool = False

    def identity(self, image: GeneratedImage) -> Digest:
        """Return what must be the same there."""
        return image.manifest if self.keeps == "manifest" else image.config

    def named(self, peer: Peer, name: str = NAME) -> Digest | None:
        """Return the identity of what has a name there; None when nothing has."""
        try:
            with peer.source(name) as source:
                root = source.resolve()
                if self.keeps == "manifest":
                    return root.digest
                manifest = parse_manifest(read_document(source, root), root)
                assert isinstance(manifest, Manifest)
                return manifest.config.digest
        except (NotFound, FileNotFoundError):
            return None


def send(
    layout: Path,
    peer: Peer,
    name: str = NAME,
    *,
    platform: Platform | None = None,
    jobs: int = 3,
) -> Copied:
    """Copy the image of a layout to the peer."""
    with peer.sink(name) as sink:
        return copy(LayoutSource(layout, platform=platform), sink, jobs=jobs)


def fetch(
    peer: Peer, store: Store, name: str = NAME, *, platform: Platform | None = None
) -> Copied:
    """Copy an image of the peer to a store."""
    with peer.source(name, platform) as source:
        return copy(source, StoreSink(store, Reference.parse("fetched")))
