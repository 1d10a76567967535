"""The graph of an image: which blobs a manifest needs, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .descriptor import Descriptor
from .digest import Digest
from .document import MAX_DOCUMENT
from .errors import InvalidContent
from .manifest import Index, Manifest, parse_manifest
from .wording import quoted

MAX_DEPTH = 8  # indexes within indexes; real ones have two levels
MAX_NODES = 100_000  # descriptors below one root

Load = Callable[[Descriptor], bytes]


@dataclass(frozen=True, slots=True)
class Node:
    """A descriptor met on a walk, with its document when it has children."""

    descriptor: Descriptor
    document: Manifest | Index | None


def children(document: Manifest | Index) -> tuple[Descriptor, ...]:
    """Return what a document mentions: config and layers, or manifests."""
    if isinstance(document, Index):
        return document.manifests
    return (document.config, *document.layers)


def walk(root: Descriptor, load: Load) -> Iterator[Node]:
    """Yield everything below `root` and then `root`: children first, each digest once.

    `load` returns the verified bytes of a manifest or index, and is asked only
    for these. A descriptor of any other media type is a leaf.

    Raises:
        InvalidContent: a document is malformed or over `MAX_DOCUMENT` bytes, or
            the graph is deeper than `MAX_DEPTH`, has a cycle or is too large, or
            one digest is described in two ways.
    """
    done: dict[Digest, Descriptor] = {}
    yield from _walk(root, load, done, ())


def _walk(
    descriptor: Descriptor, load: Load, done: dict[Digest, Descriptor], above: tuple[Digest, ...]
) -> Iterator[Node]:
    if descriptor.digest in above:
        raise InvalidContent(f"{descriptor.digest} contains itself")
    if (same := done.get(descriptor.digest)) is not None:
        _check_agreement(same, descriptor)
        return
    document = None
    if descriptor.is_index or descriptor.is_manifest:
        if len(above) >= MAX_DEPTH:
            raise InvalidContent(f"{descriptor.digest} lies deeper than {MAX_DEPTH} indexes")
        if descriptor.size > MAX_DOCUMENT:
            raise InvalidContent(
                f"manifest {descriptor.digest} has {descriptor.size} bytes, "
                f"at most {MAX_DOCUMENT} are accepted"
            )
        document = parse_manifest(load(descriptor), descriptor)
        for child in children(document):
            yield from _walk(child, load, done, (*above, descriptor.digest))
    done[descriptor.digest] = descriptor
    if len(done) > MAX_NODES:
        raise InvalidContent(f"more than {MAX_NODES} descriptors below one image")
    yield Node(descriptor, document)


def _check_agreement(first: Descriptor, second: Descriptor) -> None:
    """Refuse a digest that is a manifest here and a leaf there: it would hide what is below it."""
    kinds = {(d.size, d.is_index, d.is_manifest) for d in (first, second)}
    if len(kinds) > 1:
        raise InvalidContent(
            f"{first.digest} is described as {first.size} bytes of {quoted(first.media_type)} "
            f"and as {second.size} bytes of {quoted(second.media_type)}"
        )
