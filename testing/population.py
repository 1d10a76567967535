"""Stores of any size in minutes: many images over few layers, as a company's builds leave them.

Everything lies as docs/format.md says, but nothing is synced. The same arguments make the
same bytes, but for the order of directories.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import random
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from pathlib import Path
from typing import TypeVar

from ..oci.descriptor import OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST, REF_NAME, Descriptor
from ..oci.digest import Digest
from ..oci.image_layout import BLOBS, INDEX, MARKER, MARKER_CONTENT
from ..oci.manifest import Index
from ..oci.reference import Reference
from ..store.index.layers import Layer
from ..store.store import Store
from .tarballs import CREATED

REGISTRIES = {
    "registry.example.com": 12,
    "ghcr.example.com": 4,
    "index.docker.io": 3,
    "localhost:5000": 1,
}  # and how many of 20 repositories lie there
TAGS = 20  # of a repository, on average
STACKS = 500  # names for one run image
RUN_LAYERS = 5  # of a run image
SHARED_PERCENT, GARBAGE_PERCENT = 2, 1  # of the blobs
DEPENDENCIES = 2  # shared layers of an image beyond its run image's
SPARSE_EVERY = 50  # one of so many run images was never taken in: what is on it is sparse
DIGEST_EVERY = 20  # one of so many names is a digest

_DATE = "2023-11-14T22:13:20Z"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Population:
    """What a store was filled with.

    Attributes:
        names: of all layouts.
        blobs: how many the pool has, `garbage` too.
        garbage: how many of them no layout mentions.
        sparse: the names of those that mention layers that the pool lacks.
    """

    names: tuple[str, ...]
    blobs: int
    garbage: int
    sparse: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Image:
    manifest: Descriptor
    blobs: tuple[Digest, ...]  # that the pool has
    is_sparse: bool


def populate(path: Path, *, names: int, blobs: int, seed: int = 0) -> Population:
    """Make a store with so many names over about so many tiny blobs, three or more a name.

    Some names are of the same image, some images lack the layers of their run image, and
    some blobs belong to nobody.
    """
    with Store.create(path) as store:
        return _Town(store, names, blobs, seed).fill()


class _Town:
    """The work of filling one store."""

    def __init__(self, store: Store, names: int, blobs: int, seed: int) -> None:
        self._random = random.Random(seed)
        self._store = store
        self._seed = seed
        self._count = names
        self._garbage = blobs * GARBAGE_PERCENT // 100
        stacks = max(2, names // STACKS)
        dependencies = max(DEPENDENCIES, blobs * SHARED_PERCENT // 100 - stacks * RUN_LAYERS)
        rest = blobs - self._garbage - dependencies - stacks * RUN_LAYERS
        self._images = max(1, min(names, rest // 3))
        self._own_layers = max(self._images, rest - 2 * self._images)
        pool = store.path / BLOBS / "sha256"
        pool.mkdir(parents=True, exist_ok=True)
        self._pool = os.open(pool, os.O_RDONLY | os.O_DIRECTORY)
        self._written = 0
        self._layers: list[Layer] = []
        self._stacks = [self._stack(number) for number in range(stacks)]
        self._dependencies = _some(
            self._random, [self._layer(f"dependency{n}") for n in range(dependencies)]
        )

    def fill(self) -> Population:
        stacks = _some(self._random, self._stacks)
        images = [self._image(number, next(stacks)) for number in range(self._images)]
        references = _references(self._random, self._count)
        placed: list[tuple[Reference, _Image]] = []
        for number, (repository, tag) in enumerate(references):
            image = images[number % len(images)]
            name = f"@{image.manifest.digest}" if number % DIGEST_EVERY == 1 else f":{tag}"
            placed.append((Reference.parse(repository + name), image))
        for reference, image in placed:
            self._place(reference, image)
        for number in range(self._garbage):
            self._blob(f"nobody wants {self._seed}.{number}".encode())
        os.close(self._pool)
        self._learn(placed)
        sparse = frozenset(str(reference) for reference, image in placed if image.is_sparse)
        names = tuple(str(reference) for reference, _ in placed)
        return Population(names, self._written, self._garbage, sparse)

    def _stack(self, number: int) -> tuple[bool, list[Layer]]:
        """Return the layers of a run image, and whether the pool has them."""
        is_here = number % SPARSE_EVERY != 1
        names = [f"run{number}.{layer}" for layer in range(RUN_LAYERS)]
        return is_here, [self._layer(name, write=is_here) for name in names]

    def _layer(self, name: str, *, write: bool = True) -> Layer:
        tar = _tar(f"layers/{self._seed}/{name}", name.encode())
        packed = gzip.compress(tar, 1, mtime=0)
        digest = self._blob(packed) if write else Digest.of(packed)
        layer = Layer(Digest.of(tar), len(tar), Descriptor(OCI_LAYER_GZIP, digest, len(packed)))
        if write:
            self._layers.append(layer)
        return layer

    def _image(self, number: int, stack: tuple[bool, list[Layer]]) -> _Image:
        is_here, run = stack
        count = len(range(number, self._own_layers, self._images))
        own = [self._layer(f"app{number}.{layer}") for layer in range(count)]
        chosen = [next(self._dependencies) for _ in range(DEPENDENCIES)]
        above = [*dict.fromkeys(chosen), *own]
        layers = [*run, *above]
        config = {
            "created": _DATE,
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/bin/sh"], "Labels": {"number": f"{self._seed}.{number}"}},
            "rootfs": {"type": "layers", "diff_ids": [str(e.diff_id) for e in layers]},
            "history": [
                {"created": _DATE, "created_by": f"RUN step {step}"} for step in range(len(layers))
            ],
        }
        configured = self._document(OCI_CONFIG, config)
        manifest = self._document(
            OCI_MANIFEST,
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": configured.to_document(),
                "layers": [e.blob.to_document() for e in layers],
            },
        )
        present = [e.blob.digest for e in (layers if is_here else above)]
        return _Image(manifest, (manifest.digest, configured.digest, *present), not is_here)

    def _document(self, media_type: str, document: object) -> Descriptor:
        raw = json.dumps(document, separators=(",", ":")).encode()
        return Descriptor(media_type, self._blob(raw), len(raw))

    def _blob(self, content: bytes) -> Digest:
        digest = Digest("sha256", hashlib.sha256(content).hexdigest())
        _write(self._pool, digest.encoded, content, 0o444)
        self._written += 1
        return digest

    def _place(self, reference: Reference, image: _Image) -> None:
        directory = self._store.layouts / reference.path
        blobs = directory / BLOBS / "sha256"
        blobs.mkdir(parents=True)
        names = os.open(blobs, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for digest in image.blobs:
                self._link(digest, names)
        finally:
            os.close(names)
        annotations = {REF_NAME: reference.tag} if reference.tag else {}
        root = Descriptor(OCI_MANIFEST, image.manifest.digest, image.manifest.size, annotations)
        _write(None, f"{directory}/{MARKER}", MARKER_CONTENT, 0o644)
        _write(None, f"{directory}/{INDEX}", Index.of([root]).raw, 0o644)

    def _link(self, digest: Digest, names: int) -> None:
        name = digest.encoded
        try:
            os.link(name, name, src_dir_fd=self._pool, dst_dir_fd=names)
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            self._store.blobs.link(digest, names, name)

    def _learn(self, placed: Sequence[tuple[Reference, _Image]]) -> None:
        """Fill the database as adding and publishing would have done."""
        self._store.layers.add(self._layers)
        by_repository = groupby(placed, key=lambda pair: (pair[0].registry, pair[0].repository))
        for number, ((registry, repository), pairs) in enumerate(by_repository):
            if number % 4 == 0:  # the others were never published
                manifests = {image.manifest.digest: image.blobs[1:] for _, image in pairs}
                self._store.locations.add(registry, repository, manifests)


def _references(source: random.Random, count: int) -> Iterator[tuple[str, str]]:
    """Yield repositories and tags, each pair once: some repositories have many, most few."""
    hosts = [host for host, weight in REGISTRIES.items() for _ in range(weight)]
    made = number = 0
    while made < count:
        host = hosts[number % len(hosts)]
        group = "/group" if number % 3 == 0 else ""
        repository = f"{host}/team{number % 97}{group}/app{number}"
        tags = min(count - made, 1 + min(int(source.expovariate(1 / TAGS)), 50 * TAGS))
        for build in range(tags):
            yield repository, "latest" if build == 0 else f"1.{build // 10}.{build % 10}"
        made += tags
        number += 1


def _some(source: random.Random, things: Sequence[_T]) -> Iterator[_T]:
    """Yield things for ever, the first much more often than the last."""
    weights = list(accumulate(1 / (rank + 2) for rank in range(len(things))))
    while True:
        yield from source.choices(things, cum_weights=weights, k=1)


def _tar(name: str, content: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mtime = len(content), CREATED
    padding = bytes(-len(content) % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + padding


def _write(directory: int | None, name: str, content: bytes, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    file = os.open(name, flags, mode, dir_fd=directory)
    try:
        os.fchmod(file, mode)  # whatever the umask
        os.write(file, content)
    finally:
        os.close(file)
