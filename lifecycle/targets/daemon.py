"""A Docker daemon as the place of images.

Source: buildpacks/spec, platform.md; imgutil, local; the Docker Engine API.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from ...oci.digest import Digest
from ...oci.document import Object, as_object, string
from ...oci.errors import InvalidContent, NotFound, OcistowError
from ...oci.reference import Reference
from ...publish.access import JOBS
from ...publish.copy import copy
from ...publish.docker.engine import Engine
from ...publish.docker.held import HeldSource
from ...publish.docker.sink import DaemonSink
from ...publish.source import Source
from ...store.blobs import BlobStore
from ..caches.directory import DirectoryCache
from ..images.config import Config
from ..images.image import Image, Layer, Saved
from ..images.staging import Staging
from .pools import temporary_pool, temporary_staging

_IDENTIFIER = re.compile(r"[0-9a-f]{64}")
_CONTAINER = (  # members of a container's config that Go's lifecycle takes from a daemon
    "Cmd",
    "Healthcheck",
    "Entrypoint",
    "Env",
    "Labels",
    "OnBuild",
    "User",
    "Volumes",
    "WorkingDir",
    "ExposedPorts",
    "StopSignal",
    "Shell",
)


class DaemonTarget:
    """Images of a daemon. Not thread-safe; the images that it finds are."""

    keeps_identifier = True

    def __init__(
        self, engine: Engine, *, jobs: int = JOBS, launch_cache: Path | None = None
    ) -> None:
        """Use a daemon; the caller closes it after this.

        Layers that the directory `launch_cache` has are read there.
        """
        self._engine = engine
        self._launch_cache = launch_cache
        self._jobs = jobs
        self._stack = ExitStack()
        self._pool: BlobStore | None = None
        self._found: dict[str, None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool = None
        self._stack.close()

    @contextmanager
    def find(self, reference: str) -> Generator[Image | None]:
        """Yield what the daemon tells of an image; its layers are asked for when they are read.

        Raises:
            InvalidContent: what it tells is no image.
            RegistryError: the daemon refused.
        """
        is_name = _IDENTIFIER.fullmatch(reference) is None
        name = str(Reference.parse(reference)) if is_name else f"sha256:{reference}"
        document = self._engine.inspect(name)
        if document is None:
            yield None
            return
        what = f"image {reference} of {self._engine.name}"
        identifier = Digest.parse(string(document, "Id", what))
        config = _config(document, self._engine.history(name), what)
        encoded, pool = config.encode(), self._documents()
        near = None if self._launch_cache is None else self._near
        with HeldSource(self._engine, name, encoded, config.diff_ids, pool, near) as source:
            root = source.resolve()
            self._found[name] = None
            layers = tuple(map(Layer, config.diff_ids, source.layers))
            yield Image(reference, identifier.encoded, root, config, layers, source)

    def name(self, reference: str) -> str:
        """Return the reference as it was given."""
        return reference

    def check_access(self, readable: Sequence[str], writable: Sequence[str]) -> None:
        """Do nothing: whoever can ask a daemon may do everything."""

    def staging(self, reference: str) -> AbstractContextManager[Staging]:
        """Return a pool in the directory for temporary files, gone when the block is left."""
        return temporary_staging()

    def save(self, source: Source, references: Sequence[str]) -> Saved:
        """Load the image, without the layers that the daemon has, and give it all its names.

        Raises:
            InvalidContent, NotFound, RegistryError, OSError: it could be given none of the names.
        """
        names: list[str] = []
        failed: list[tuple[str, str]] = []
        first: OcistowError | OSError | None = None
        losses: tuple[str, ...] = ()
        loaded: Digest | None = None
        root = source.resolve()
        for text in references:
            try:
                reference = Reference.parse(text)
                if loaded is None:
                    sink = DaemonSink(self._engine, reference, self._pool, self._found)
                    losses = copy(source, sink, jobs=self._jobs).losses
                    loaded = self._identifier(reference)
                else:
                    self._engine.tag(str(loaded), reference)
            except (OcistowError, OSError) as error:
                first = first or error
                failed.append((text, str(error)))
            else:
                names.append(text)
        if loaded is None:
            assert first is not None, "no references"
            raise first
        is_kept = loaded == root.digest
        return Saved(
            tuple(names),
            root.digest if is_kept else None,
            loaded,
            root.size if is_kept else 0,
            losses,
            tuple(failed),
        )

    def _identifier(self, reference: Reference) -> Digest:
        """Return what the daemon calls an image that was just loaded.

        Raises:
            NotFound: it is gone already.
        """
        found = self._engine.image(str(reference))
        if found is None:
            raise NotFound(reference)
        return found.digest

    def _near(self, diff_id: Digest) -> int | None:
        """Open a layer of the launch cache; None if it lacks it, or has another one in its place.

        The cache is opened for each, by the user whom this process became: an exporter writes
        it when it has saved the image.
        """
        assert self._launch_cache is not None
        try:
            with DirectoryCache(self._launch_cache) as cache:
                return cache.open_file(diff_id)
        except (OcistowError, OSError):
            return None

    def _documents(self) -> BlobStore:
        """Return a pool for what was read out of the daemon.

        It is made late, by the user whom this process became.
        """
        if self._pool is None:
            self._pool = self._stack.enter_context(temporary_pool())
        return self._pool


def _config(document: Object, history: Sequence[Object], what: str) -> Config:
    """Return the config as Go's lifecycle makes it of what a daemon tells."""
    rootfs = as_object(document.get("RootFS"), f"RootFS of {what}")
    container = document.get("Config")
    given = as_object({} if container is None else container, f"Config of {what}")
    return Config.from_document(
        {
            "architecture": document.get("Architecture"),
            "author": document.get("Author"),
            "created": document.get("Created"),
            "os": document.get("Os"),
            "os.version": document.get("OsVersion"),
            "variant": document.get("Variant"),
            "rootfs": {"diff_ids": rootfs.get("Layers")},
            "history": [_entry(entry, what) for entry in reversed(history)],
            "config": {name: given[name] for name in _CONTAINER if name in given},
        },
        what,
    )


def _entry(entry: Object, what: str) -> Object:
    seconds = entry.get("Created")
    if not isinstance(seconds, int):
        raise InvalidContent(f"the history of {what} has no times")
    try:
        created = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError):
        raise InvalidContent(f"the history of {what} has the time {seconds}") from None
    return {
        "created": created.isoformat().replace("+00:00", "Z"),
        "created_by": entry.get("CreatedBy"),
        "comment": entry.get("Comment"),
    }
