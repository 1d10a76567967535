"""A directory of image layouts as the place of images.

Three kinds of directory serve: `layouts` of a store, whose pool has every blob once; the same
as a mount shows it, to whom may see no more than that; and any other, where each image has all
of its blobs. Source: image-spec, image-layout.md; imgutil, layout.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ...oci.descriptor import REF_NAME, Descriptor
from ...oci.digest import CANONICAL, Digest
from ...oci.errors import InvalidContent, NotFound, OcistowError
from ...oci.image_layout import BLOBS, INDEX
from ...oci.manifest import Manifest, parse_manifest
from ...oci.platform import Platform
from ...oci.reference import Reference
from ...oci.wording import about, message_of
from ...publish.access import JOBS
from ...publish.copy import copy
from ...publish.layout import LayoutSource, StoreSink
from ...publish.layout_sink import LayoutSink
from ...publish.sink import Sink, host_platform
from ...publish.source import Source, read_document
from ...store.blobs import BlobStore
from ...store.disk import Disk, make_directory
from ...store.layout import LAYOUTS
from ...store.named_disk import NamedDisk, disk_of
from ...store.reading import open_directory
from ..images.assembly import Assembled
from ..images.image import Image, Saved, open_image
from ..images.staging import Staging

if TYPE_CHECKING:
    from ...publish.attached import Attached
    from ...store.store import Store

_OURS = "fuse.ocistow"  # the type of a mount of ours
_FOR_ALL = 0o644  # the mode of blobs


class LayoutTarget:
    """Images in a directory, each a layout where its reference says. Thread-safe.

    What is called an image's name is its layout's directory, and its identifier is that with
    `@` and the digest of its manifest. Directories are absolute in both.
    """

    keeps_identifier = False

    def __init__(
        self,
        directory: Path,
        *,
        store: Store | None = None,
        platform: Platform | None = None,
        jobs: int = JOBS,
        disk: Disk | None = None,
    ) -> None:
        """Use a directory, which need not exist yet.

        Args:
            directory: of the layouts.
            store: the one whose layouts they are; the caller closes it.
            platform: what is wanted of an image for several; by default this machine's.
            jobs: how many blobs are under way at once.
            disk: to write to, outside a store.
        """
        self.directory = Path(os.path.abspath(directory))
        self._given = Path(os.path.normpath(directory))
        self._store = store
        if store is not None:
            from ...publish.recognition import Recognition  # as long as its file may be read

            self._recognition = partial(Recognition, store)
        self._platform = platform or host_platform()
        self._jobs = jobs
        self._disk = disk
        self._pools: dict[Path, BlobStore] = {}

    @contextmanager
    def find(self, reference: str) -> Generator[Image | None]:
        """Yield the image of a reference, a directory or an identifier; None if there is none.

        Raises:
            InvalidContent: what is there is no image for this platform, or another one than an
                identifier says.
        """
        yield self._find(reference)

    def name(self, reference: str) -> str:
        """Return the directory of an image, whether or not there is one."""
        located = self._located(reference)
        return str(located[0] if located else self._full(reference))

    def places(self, reference: str) -> tuple[str, str]:
        """Return where an image of a reference is looked up: the short form, and the full path."""
        return str(self._short(reference)), str(self._full(reference))

    def check_access(self, readable: Sequence[str], writable: Sequence[str]) -> None:
        """Do nothing: what is in the way of a file shows when it is written."""

    @contextmanager
    def staging(self, reference: str) -> Generator[Staging]:
        """Yield the pool of the store, or of the image's layout, in which layers are packed."""
        with about(self.name(reference)), self._staging(self._full(reference)) as staging:
            yield staging

    @contextmanager
    def _staging(self, path: Path) -> Generator[Staging]:
        if self._store is not None:
            yield Staging(self._store.blobs, self._recognition())
            return
        make_directory(path.resolve() / BLOBS, self._disk or Disk())
        with self._opened(path / BLOBS) as blobs:
            disk = self._disk or disk_of(blobs)
        try:
            with BlobStore(path / BLOBS, disk, _FOR_ALL) as pool:
                if isinstance(disk, NamedDisk):
                    with (
                        suppress(FileNotFoundError),
                        self._opened(path / BLOBS / CANONICAL) as there,
                    ):
                        disk.sweep(there)
                self._pools[path] = pool
                yield Staging(pool)
        finally:
            self._pools.pop(path, None)
            self._remove_empty(path, disk)

    def save(self, source: Source, references: Sequence[str]) -> Saved:
        """Write the image to the layouts of all its names; each is whole, or what it was before.

        Raises:
            InvalidContent, NotFound, OSError: it could be given none of them.
        """
        root = source.resolve()
        document = parse_manifest(read_document(source, root), root)
        if not isinstance(document, Manifest):
            raise InvalidContent(f"{root.digest} is not an image for one platform")
        names: list[str] = []
        failed: list[tuple[str, str]] = []
        first: OcistowError | OSError | None = None
        leases = self._store.leases if self._store else None
        kept = source.kept if isinstance(source, Assembled) else frozenset[Digest]()
        for reference in references:
            name = self.name(reference)
            try:
                if not self._has(reference, root):
                    copy(source, self._sink(reference, kept), jobs=self._jobs, leases=leases)
            except (OcistowError, OSError) as error:
                first = first or error
                failed.append((name, message_of(error)))
            else:
                names.append(name)
        if first is not None and not names:
            with about(failed[0][0]):
                raise first
        return Saved(
            tuple(names), root.digest, document.config.digest, root.size, failed=tuple(failed)
        )

    def attach(self, reference: Reference, image: Digest, attached: Attached) -> None:
        """Write what is attached to an image to layouts beside that: by tags, and in lists.

        Raises:
            InvalidContent, NotFound, OSError: something of it was not written.
        """
        from ...publish.attached import list_of
        from ...publish.referrer import Part, fallback_tag

        leases = self._store.leases if self._store else None

        def put(source: Source, tag: str) -> None:
            name = replace(reference, tag=tag, digest=None)
            copy(source, self._sink(str(name)), jobs=self._jobs, leases=leases)

        for one in attached.tagged:
            put(Part(one.what.source, one.what.root), one.tag)
        for subject in attached.referrers:
            tag = fallback_tag(subject)
            where = self.directory / replace(reference, tag=tag, digest=None).path
            put(list_of(subject, where, attached), tag)

    def _sink(self, reference: str, kept: frozenset[Digest] = frozenset()) -> Sink:
        parsed = Reference.parse(reference)
        if self._store is not None:
            return StoreSink(self._store, parsed)
        path = self._full(reference)
        return LayoutSink(
            path,
            parsed.tag,
            alone=True,
            trusted=_is_mounted(path.resolve()),
            believed=kept,
            pool=self._pools.get(path),
            disk=self._disk,
        )

    def _has(self, reference: str, root: Descriptor) -> bool:
        """Tell whether the store has an image, whole and under its name.

        What else is there then belongs to it, such as signatures, and is to stay.
        """
        if self._store is None:
            return False
        parsed = Reference.parse(reference)
        try:
            entries = self._store.layout(parsed.path).index().manifests
        except (NotFound, InvalidContent):
            return False
        named = {entry.annotations.get(REF_NAME, "") for entry in entries if entry == root}
        return parsed.tag in named and self._recognition().is_complete(root)

    def _find(self, reference: str) -> Image | None:
        if located := self._located(reference):
            return self._open(*located)
        parsed = Reference.parse(reference)
        return self._open(self._full(reference), parsed.digest, parsed.tag) or self._open(
            self._short(reference), parsed.digest, parsed.tag
        )

    def _open(self, path: Path, digest: Digest | None, tag: str = "") -> Image | None:
        """Open what a layout calls `tag`, or the only image that it has."""
        try:
            entries = LayoutSource(path).index().manifests
        except NotFound:
            return None
        if not entries:  # as Go's lifecycle leaves it for a moment
            return None
        named = any(entry.annotations.get(REF_NAME) == tag for entry in entries)
        source = LayoutSource(path, tag if named else "", self._platform)
        try:
            root = source.resolve()
            image = open_image(str(path), f"{path}@{root.digest}", source, root)
        except NotFound as error:
            raise InvalidContent(f"{path}: {error}") from error
        if digest is not None and digest not in {root.digest, *(e.digest for e in entries)}:
            raise InvalidContent(f"{path} is {root.digest} now, not {digest}")
        return image

    def _located(self, reference: str) -> tuple[Path, Digest | None] | None:
        """Return the directory and digest that an identifier says; None for a reference.

        A directory that another phase was given as a relative one is believed to be
        an identifier's if it is there.

        Raises:
            InvalidContent: the directory is no layout's here.
        """
        text, at, encoded = reference.rpartition("@")
        try:
            digest = Digest.parse(encoded) if at else None
        except InvalidContent:
            digest = None
        path = Path(os.path.normpath(text if digest else reference))
        if not path.is_absolute():
            if digest is None or not path.is_relative_to(self._given) or not _is_layout(path):
                return None
            path = Path(os.path.abspath(path))
        if not path.is_relative_to(self.directory):
            raise InvalidContent(f"{path} is not in {self.directory}")
        return path, digest

    def _full(self, reference: str) -> Path:
        return self.directory / Reference.parse(reference).path

    def _short(self, reference: str) -> Path:
        """Return where the draft has an image: where its name leads as it was written."""
        Reference.parse(reference)  # which refuses what would lead elsewhere
        above, slash, last = reference.partition("@")[0].rpartition("/")
        return self.directory / f"{above}{slash}{last.partition(':')[0]}"

    @contextmanager
    def _opened(self, path: Path) -> Generator[int]:
        directory = open_directory(path.resolve())
        try:
            yield directory
        finally:
            os.close(directory)

    def _remove_empty(self, path: Path, disk: Disk) -> None:
        """Remove the directories that were made for an image which was not saved."""
        with self._opened(path / BLOBS) as blobs:
            disk.rmdir(blobs, CANONICAL)
        names = [path / BLOBS, path, *path.parents]
        for name in names[: names.index(self.directory)]:
            with self._opened(name.parent) as above:
                if not disk.rmdir(above, name.name):
                    return


@contextmanager
def open_layouts(directory: Path, *, jobs: int = JOBS) -> Generator[LayoutTarget]:
    """Open a directory of layouts: that of a store, of a mount of one, or any other.

    Raises:
        InvalidContent: it belongs to a store of a format that is not known.
    """
    real = directory.resolve()
    with ExitStack() as stack:
        store = None
        if real.name == LAYOUTS:
            from ...store.store import Store

            with suppress(NotFound):
                store = stack.enter_context(Store.open(real.parent))
        yield LayoutTarget(directory, store=store, jobs=jobs)


def _is_layout(path: Path) -> bool:
    return (path / INDEX).is_file()


def _is_mounted(directory: Path) -> bool:
    """Tell whether a layout is, or will be, on a mount of a store, which vouches for its blobs.

    In a container such a mount shows no more of itself than its type, and each image's layout
    may be a mount of its own.
    """
    there = next(path for path in (directory, *directory.parents) if path.exists())
    device = there.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
        return any(
            line.split()[2] == number and line.partition(" - ")[2].startswith(f"{_OURS} ")
            for line in mounts
        )
