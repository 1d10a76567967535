"""An image that stays in a Docker daemon until somebody reads a layer of it.

What a daemon tells at once is enough to make another image on top of this one. A layer is
given away only in the stream of `docker save`, of which no more is kept than was asked for.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Self

from ...oci.descriptor import DOCKER_CONFIG, DOCKER_MANIFEST, Descriptor
from ...oci.digest import CANONICAL, Digest
from ...oci.document import MAX_DOCUMENT
from ...oci.errors import InvalidContent, NotFound
from ...oci.image_layout import INDEX, blob_path
from ...oci.manifest import ImageConfig, Index, Manifest, parse_manifest
from ...store.blobs import BlobStore
from ...store.reading import READ_SIZE
from ..archives.docker import image_manifest
from ..archives.entries import Forward
from ..archives.tarball import Members
from ..compression import read_block
from ..copy import MAX_DOCUMENTS
from ..layout import select
from ..source import Blob, Stream, read_document, select_platform
from .engine import Engine

DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"

_LAYER = re.compile(r"(?:.*/)?(?:([0-9a-f]{64})(?:\.tar)?|layer\.tar)")


Near = Callable[[Digest], int | None]
"""Opens the plain tar of a layer outside of the daemon, checked; None if there is none."""


@dataclass(frozen=True, slots=True)
class _Taken:
    file: int
    size: int


class HeldSource:
    """An image of a daemon, whose config is known. `open` is thread-safe.

    The classic store has no blobs: there the layers are plain tars, named by their diffIDs
    and of an unknown size, which 0 stands for; who opens one learns its size. From
    containerd's store the documents are read, in one pass over the image, and the
    layers are what they are there. What was read waits in `pool`: documents for good,
    so that a sink knows what the daemon has, layers until the source is closed. A plain
    layer that is near is not asked for: a daemon gives away whole images, 120 MB in 2 s.
    """

    sparse = False

    def __init__(
        self,
        engine: Engine,
        name: str,
        config: bytes,
        diff_ids: Sequence[Digest],
        pool: BlobStore,
        near: Near | None = None,
    ) -> None:
        self._engine = engine
        self._name = name
        self._what = f"{name} of {engine.name}"
        self._pool = pool
        self._near = near
        self._config = config
        self._diff_ids = diff_ids
        self._root: Descriptor | None = None
        self._documents: dict[Digest, bytes] = {}
        self._taken: dict[Digest, _Taken] = {}
        self._asked = False
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self.layers: tuple[Descriptor, ...] = ()

    def resolve(self) -> Descriptor:
        """Return the manifest that the store has, or one made up for a store that has none.

        Raises:
            NotFound: the image is gone, or has no manifest for the daemon's platform.
            InvalidContent: what the daemon sends is no image, or not this one.
        """
        if self._root is None:
            self._root = self._read() if self._engine.has_containerd_store() else self._made()
        return self._root

    def open(self, descriptor: Descriptor) -> Blob:
        """Open a part of the image; a layer has its real size.

        Raises:
            NotFound: the daemon does not send it; `name` is its digest.
        """
        digest = descriptor.digest
        if (raw := self._documents.get(digest)) is not None:
            return Blob(BytesIO(raw), descriptor)
        with self._lock:
            if digest not in self._taken and not self._is_near(digest):
                self._take(digest)
            taken = self._taken[digest]
        file = os.open(f"/proc/self/fd/{taken.file}", os.O_RDONLY | os.O_CLOEXEC)
        return Blob(open(file, "rb"), replace(descriptor, size=taken.size), file)

    def close(self) -> None:
        """Discard the layers that were read."""
        self._taken.clear()
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _made(self) -> Descriptor:
        self.layers = tuple(Descriptor(DOCKER_LAYER, diff_id, 0) for diff_id in self._diff_ids)
        config = Descriptor(DOCKER_CONFIG, Digest.of(self._config), len(self._config))
        raw = image_manifest(config, self.layers, DOCKER_MANIFEST)
        root = Descriptor(DOCKER_MANIFEST, Digest.of(raw), len(raw))
        self._documents = {config.digest: self._config, root.digest: raw}
        return root

    def _read(self) -> Descriptor:
        """Read the documents of containerd's store."""
        found = self._sent_documents()
        if INDEX not in found:
            raise InvalidContent(f"{self._what}: no {INDEX} was sent")
        named = ((Digest.of(raw), raw) for raw in found.values())
        self._documents = {d: raw for d, raw in named if found.get(blob_path(d)) == raw}
        root = select(Index.parse(found[INDEX], f"{INDEX} of {self._what}"), "", self._what)
        root = select_platform(self, root, self._engine.platform())
        manifest = parse_manifest(read_document(self, root), root)
        if not isinstance(manifest, Manifest):
            raise InvalidContent(f"{self._what} is not an image for one platform")
        raw = read_document(self, manifest.config)
        config = ImageConfig.parse(raw, f"config {manifest.config.digest}")
        if config.diff_ids != tuple(self._diff_ids) or len(manifest.layers) != len(self._diff_ids):
            raise InvalidContent(f"{self._what}: its manifest has other layers than it was said")
        self.layers = manifest.layers
        for digest in (root.digest, manifest.config.digest):
            self._pool.add([self._documents[digest]], digest)
        return root

    def _sent_documents(self) -> dict[str, bytes]:
        """Return what is sent of JSON objects, by their names."""
        found = dict[str, bytes]()
        left = MAX_DOCUMENTS
        with self._engine.save(self._name) as stream:
            for path, member, content in Members(Forward(stream), self._what, links=True):
                if not 0 < member.size <= MAX_DOCUMENT:
                    continue
                start = read_block(content, 1)
                if start == b"{":
                    left -= member.size
                    if left < 0:
                        raise InvalidContent(f"{self._what}: over {MAX_DOCUMENTS} bytes of JSON")
                    found[path] = start + read_block(content, member.size - 1)
        return found

    def _is_near(self, digest: Digest) -> bool:
        """Take a layer from where it is near, if it is."""
        file = self._near(digest) if self._near is not None else None
        if file is None:
            return False
        self._stack.callback(os.close, file)
        self._taken[digest] = _Taken(file, os.fstat(file).st_size)
        return True

    def _take(self, digest: Digest) -> None:
        """Take a layer out of the stream; the second time, all that are left."""
        others = {layer.digest for layer in self.layers} - self._taken.keys()
        wanted = (others if self._asked else set[Digest]()) | {digest}
        self._asked = True
        with self._engine.save(self._name) as stream:
            for path, member, content in Members(Forward(stream), self._what, links=True):
                match = _LAYER.fullmatch(path)
                if match is None or member.target:
                    continue
                if match[1] is None or Digest(CANONICAL, match[1]) in wanted:
                    wanted -= self._kept(content, wanted)
                if not wanted:
                    return
        if digest not in self._taken:
            raise NotFound(digest)

    def _kept(self, content: Stream, wanted: Collection[Digest]) -> set[Digest]:
        """Keep the content of a member if it is one of the layers that are wanted."""
        with ExitStack() as stack:
            ingest = stack.enter_context(self._pool.ingest())
            while data := content.read(READ_SIZE):
                ingest.write(data)
            digest = ingest.digest()
            if digest not in wanted:
                return set()
            self._taken[digest] = _Taken(ingest.file, ingest.size)
            self._stack.push(stack.pop_all())
        return {digest}
