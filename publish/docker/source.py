"""An image of a Docker daemon, as source.

A daemon gives an image away only whole, as the stream of `docker save`, and writes all of
that to its own disk before the first byte comes. So what is known here is not asked for.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import replace
from io import BytesIO
from typing import Self

from ...oci.descriptor import OCI_CONFIG, OCI_MANIFEST, REF_NAME, Descriptor
from ...oci.digest import Digest
from ...oci.document import MAX_DOCUMENT
from ...oci.errors import DigestMismatch, InvalidContent, NotFound
from ...oci.manifest import ImageConfig
from ...oci.platform import Platform
from ...oci.reference import Reference
from ..archives.docker import DockerArchiveSource, config_name, image_manifest
from ..archives.entries import Forward
from ..archives.oci import OciArchiveSource
from ..archives.spool import Spool, never, unless_known
from ..archives.tarball import Members
from ..compression import read_block
from ..recognition import Recognition
from ..source import Blob, Source, Watch, select_platform, unwatched
from .engine import Engine, Found


class DaemonSource:
    """One image of a Docker daemon, with either image store.

    When the store has this very image, nothing but its identity is asked for. When it has
    all layers, the stream is read up to the config. Else the layers that it lacks are
    compressed as they come, and wait in unnamed files of the pool until the source is
    closed, and `watch` hears how much came. From containerd's image store the image
    comes as it is. `open` is thread-safe.
    """

    sparse = False

    def __init__(
        self,
        engine: Engine,
        name: str,
        recognition: Recognition,
        platform: Platform | None = None,
        watch: Watch = unwatched,
    ) -> None:
        self._engine = engine
        self._name = name
        self._recognition = recognition
        self._platform = platform
        self._watch = watch
        self._stack = ExitStack()
        self._root: Descriptor | None = None
        self._documents: dict[Digest, bytes] = {}
        self._streamed: Source | None = None

    def resolve(self) -> Descriptor:
        """Return the image's manifest: the store's, the daemon's, or a new one.

        Raises:
            NotFound: the daemon has no such image.
            InvalidContent: what it sends is no image, or not the one it announced.
        """
        if self._root is None:
            found = self._engine.image(self._name)
            if found is None:
                raise NotFound(f"{self._name} of {self._engine.name}")
            root = self._same(found) or self._recognition.image(found.digest) or self._taken(found)
            self._root = replace(root, annotations=self._annotations())
        return self._root

    def open(self, descriptor: Descriptor) -> Blob:
        """Open a part of the image that was resolved."""
        if raw := self._documents.get(descriptor.digest):
            return Blob(BytesIO(raw), descriptor)
        return (self._streamed or self._recognition).open(descriptor)

    def close(self) -> None:
        """Discard what nobody took."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _annotations(self) -> dict[str, str]:
        """Return the name, unless the image was named by its identifier."""
        with suppress(InvalidContent):
            return {REF_NAME: str(Reference.parse(self._name))}
        return {}

    def _same(self, found: Found) -> Descriptor | None:
        """Return what the store has under an identifier, if that is a manifest or index."""
        root = self._recognition.manifest(found.digest)
        if root is None or not self._engine.has_containerd_store():  # else that is a config
            return None
        platform = self._platform
        if platform is None and not self._recognition.is_complete(root):
            platform = self._engine.platform()
        with suppress(NotFound):
            chosen = select_platform(self, root, platform)
            return chosen if self._recognition.is_complete(chosen) else None
        return None

    def _taken(self, found: Found) -> Descriptor:
        if self._engine.has_containerd_store():
            return self._copied()
        layers = self._recognition.layers(found.diff_ids)
        if layers.keys() >= set(found.diff_ids):
            return self._made(found, layers)
        return self._read(found)

    def _copied(self) -> Descriptor:
        """Return an image as containerd's store has it; its platform if it lacks the others."""
        archive = self._spooled(self._name, compressing=False)
        try:
            return self._chosen(archive, self._platform)
        except NotFound:
            if self._platform is not None:
                raise
            return self._chosen(archive, self._engine.platform())

    def _chosen(self, archive: Spool, platform: Platform | None) -> Descriptor:
        self._streamed = OciArchiveSource(archive, self._recognition, platform=platform)
        return self._streamed.resolve()

    def _made(self, found: Found, layers: dict[Digest, Descriptor]) -> Descriptor:
        """Make a manifest of layers that the store has."""
        raw = self._config(found.digest)
        config = ImageConfig.parse(raw, f"config {found.digest}")
        if config.diff_ids != found.diff_ids:
            raise InvalidContent(f"{self._engine.name} names other layers than {found.digest}")
        manifest = image_manifest(
            Descriptor(OCI_CONFIG, found.digest, len(raw)),
            [layers[diff_id] for diff_id in found.diff_ids],
        )
        root = Descriptor(
            OCI_MANIFEST, Digest.of(manifest), len(manifest), platform=config.platform
        )
        self._documents = {found.digest: raw, root.digest: manifest}
        return root

    def _config(self, digest: Digest) -> bytes:
        """Return a config, of the store or of the stream, which is read no further."""
        with suppress(NotFound), open(self._recognition.pool.open(digest), "rb") as file:
            return read_block(file, MAX_DOCUMENT)
        with self._engine.save(str(digest)) as stream:
            for path, member, content in Members(Forward(stream), self._engine.name, links=True):
                if config_name(path) == digest.encoded and member.size <= MAX_DOCUMENT:
                    raw = read_block(content, MAX_DOCUMENT)
                    if Digest.of(raw, digest.algorithm) != digest:
                        raise DigestMismatch(digest, Digest.of(raw, digest.algorithm))
                    return raw
        raise NotFound(f"config {digest} in what {self._engine.name} sends")

    def _read(self, found: Found) -> Descriptor:
        """Take an image in from the stream of the classic store."""
        archive = self._spooled(str(found.digest), compressing=True)
        streamed = DockerArchiveSource(archive, self._recognition)
        self._streamed = self._stack.enter_context(streamed)
        root = streamed.resolve()
        if streamed.config != found.digest:
            raise InvalidContent(f"{self._engine.name} sent {streamed.config}, not {found.digest}")
        return root

    def _spooled(self, name: str, *, compressing: bool) -> Spool:
        spool = self._stack.enter_context(Spool(self._engine.name, self._recognition.pool))
        with self._engine.save(name) as stream:
            packs = unless_known(self._recognition) if compressing else never
            spool.fill(stream, links=True, packs=packs, watch=self._watch)
        return spool
