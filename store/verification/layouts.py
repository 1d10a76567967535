"""Image layouts against the image-spec, and against what a store promises about its links.

Source: image-spec, image-layout.md, descriptor.md, manifest.md, config.md. Nothing is changed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import suppress
from pathlib import PurePosixPath

from ...oci.descriptor import (
    DOCKER_LAYER,
    DOCKER_LAYER_GZIP,
    IMAGE_CONFIGS,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    Descriptor,
)
from ...oci.digest import HEX_LENGTHS, Digest, is_encoded
from ...oci.document import MAX_DOCUMENT, parse_object, string
from ...oci.errors import DigestMismatch, InvalidContent, NotFound
from ...oci.graph import MAX_DEPTH, MAX_NODES, children
from ...oci.image_layout import BLOBS, INDEX, LAYOUT_VERSION, MARKER
from ...oci.manifest import Manifest, parse_manifest
from ...oci.wording import message_of, quoted
from ..layout import Layout
from ..reading import BLOCK, open_file
from ..spares import is_spare
from ..store import Store
from .findings import Finding, Kind, Severity
from .surroundings import Directory
from .verifier import Verifier, bad_blob

LAYERS = {OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, DOCKER_LAYER, DOCKER_LAYER_GZIP}

_NONDISTRIBUTABLE = "nondistributable"  # layers that the image-spec lets stay away, now deprecated
_FOREIGN = ".foreign."  # likewise, as Docker calls them

DiffId = Callable[[int, Descriptor, str], Digest]
"""Returns the digest, by an algorithm, of what an open layer inflates to; raises InvalidContent."""


class LayoutChecker:
    """Checks layouts one by one, and reads each file that is not the pool's once.

    Not thread-safe. With a `diff_id` layers are inflated, each once.

    Attributes:
        incomplete: the layouts that lack something which an image needs, by path.
        copies: a layout that has a good file of its own for a blob, which the pool may lack.
        checked: how many layouts were looked at.
    """

    def __init__(self, store: Store, verifier: Verifier, diff_id: DiffId | None = None) -> None:
        self._store = store
        self._verifier = verifier
        self._diff_id = diff_id
        self._seen: dict[tuple[int, int], bool] = {}  # files that are not the pool's: good or not
        self._inflated: dict[tuple[Digest, Digest], str] = {}
        self._lost: frozenset[Digest] | None = None
        self._told = set[Digest]()  # of what is lost, however many layouts lack it
        self.incomplete: dict[PurePosixPath, None] = {}
        self.copies: dict[Digest, PurePosixPath] = {}
        self.checked = 0

    def check(self, directory: Directory) -> Iterator[Finding]:
        """Yield what is wrong with one layout."""
        self.checked += 1
        layout = self._store.layout(directory.name)
        try:
            yield from self._check(layout, directory)
        except OSError as error:  # the other layouts are to be checked all the same
            yield self._wrong(layout, Kind.UNREADABLE, message_of(error))

    def _check(self, layout: Layout, directory: Directory) -> Iterator[Finding]:
        where = str(layout.name)
        files = dict(self._files(layout))
        listed = set(files)
        yield from self._other_files(layout, files)
        if not directory.has_index:
            words = f"no {INDEX}: being written, or its writer died"
            yield Finding(Severity.NOTE, Kind.UNFINISHED, where, words, layout=layout.name)
            return
        yield from self._marker(directory)
        yield from _strays(self._store, layout)
        try:
            index = layout.index()
        except NotFound:
            return  # removed meanwhile
        except InvalidContent as error:
            yield self._wrong(layout, Kind.BAD_INDEX, str(error))
            return
        # an image that took another's place meanwhile linked its blobs before it was named
        late = {digest: own for digest, own in self._files(layout) if digest not in listed}
        yield from self._other_files(layout, late)
        files |= late
        known: dict[Digest, Descriptor] = {}
        waiting = [(entry, 0) for entry in reversed(index.manifests)]
        while waiting:
            descriptor, depth = waiting.pop()
            if descriptor.digest in known:
                continue
            known[descriptor.digest] = descriptor
            if len(known) > MAX_NODES or depth > MAX_DEPTH:
                words = f"deeper than {MAX_DEPTH} indexes, or over {MAX_NODES} descriptors"
                yield self._wrong(layout, Kind.BAD_INDEX, words)
                return
            below = list[Descriptor]()
            is_document = descriptor.is_index or descriptor.is_manifest
            if (yield from self._presence(layout, descriptor, files, needed=is_document)):
                yield from self._document(layout, descriptor, files, below)
            waiting += [
                (child, depth + 1) for child in reversed(below) if child.digest not in known
            ]

    def _document(
        self,
        layout: Layout,
        descriptor: Descriptor,
        files: dict[Digest, os.stat_result],
        below: list[Descriptor],
    ) -> Iterator[Finding]:
        """Look into a manifest or index; what is to be looked at next goes to `below`."""
        if not (descriptor.is_index or descriptor.is_manifest):
            return
        try:
            document = parse_manifest(layout.read(descriptor), descriptor)
        except NotFound:
            return  # removed meanwhile
        except (InvalidContent, OSError) as error:
            yield from self._unreadable(layout, descriptor, error)
            return
        if not isinstance(document, Manifest):
            below += children(document)
            return
        if (yield from self._presence(layout, document.config, files, needed=True)):
            yield from self._config(layout, document)
        for layer in document.layers:
            yield from self._presence(layout, layer, files, needed=False)
            is_image = document.config.media_type in IMAGE_CONFIGS
            if is_image and layer.media_type not in LAYERS and not _may_stay_away(layer):
                words = f"layer {layer.digest} has the media type {quoted(layer.media_type)}"
                note = Severity.NOTE
                yield self._wrong(layout, Kind.UNKNOWN_TYPE, words, layer, severity=note)

    def _config(self, layout: Layout, manifest: Manifest) -> Iterator[Finding]:
        if manifest.config.media_type not in IMAGE_CONFIGS:
            return  # an artifact
        try:
            diff_ids = layout.config(manifest).diff_ids
        except NotFound:
            return
        except (InvalidContent, OSError) as error:
            yield from self._unreadable(layout, manifest.config, error)
            return
        if len(diff_ids) != len(manifest.layers):
            words = f"its config has {len(diff_ids)} diff_ids for {len(manifest.layers)} layers"
            yield self._wrong(layout, Kind.WRONG_LAYERS, words, manifest.config)
        elif self._diff_id is not None:
            for diff_id, layer in zip(diff_ids, manifest.layers, strict=True):
                if words := self._inflate(layout, layer, diff_id, self._diff_id):
                    yield self._wrong(layout, Kind.WRONG_DIFF_ID, words, layer)

    def _inflate(self, layout: Layout, layer: Descriptor, diff_id: Digest, inflate: DiffId) -> str:
        """Return what is wrong with what a layer inflates to."""
        if layer.digest in self._verifier.tally.bad:
            return ""  # found once
        key = layer.digest, diff_id
        if key not in self._inflated:
            words = ""
            try:
                file = layout.open(layer.digest)
            except NotFound:
                return ""  # that is said elsewhere
            except OSError as error:
                return f"{layer.digest}: {message_of(error)}"
            try:
                actual = inflate(file, layer, diff_id.algorithm)
                if actual != diff_id:
                    words = f"{layer.digest} inflates to {actual}, the config says {diff_id}"
            except (InvalidContent, OSError) as error:
                words = f"{layer.digest}: {message_of(error)}"
            finally:
                os.close(file)
            self._inflated[key] = words
        return self._inflated[key]

    def _presence(
        self,
        layout: Layout,
        descriptor: Descriptor,
        files: dict[Digest, os.stat_result],
        *,
        needed: bool,
    ) -> Generator[Finding, None, bool]:
        """Yield what is wrong with how a blob is there, and return whether its content is."""
        digest = descriptor.digest
        own, pool = files.get(digest), self._pool(digest)
        there = pool or own
        if there is None:
            yield from self._absent(layout, descriptor, needed=needed)
            return False
        if digest in self._verifier.tally.bad:
            self.incomplete[layout.name] = None
        elif own is None:
            needed = needed or digest in self._quarantined()
            if needed:
                self.incomplete[layout.name] = None
            severity = Severity.ERROR if needed else Severity.NOTE
            words = f"the pool has {digest}, the layout does not: other tools cannot read it there"
            yield self._wrong(layout, Kind.NOT_LINKED, words, descriptor, severity=severity)
        if there.st_size != descriptor.size and digest not in self._verifier.tally.bad:
            words = (
                f"{digest} has {there.st_size} bytes, its descriptor announces {descriptor.size}"
            )
            yield self._wrong(layout, Kind.WRONG_SIZE, words, descriptor)
            return False
        return True

    def _absent(self, layout: Layout, descriptor: Descriptor, *, needed: bool) -> Iterator[Finding]:
        digest = descriptor.digest
        bad = digest in self._verifier.tally.bad
        lost = digest in self._quarantined()
        if needed or bad or lost:
            self.incomplete[layout.name] = None
        if bad:
            return  # found once
        if lost and digest in self._told:
            return
        if needed or lost:
            self._told.add(digest)
            kind = Kind.ABSENT_DOCUMENT if needed else Kind.ABSENT_LAYER
            words = f"{digest} is absent" + (
                ", maybe from other images too: what it was is in quarantine" if lost else ""
            )
            yield self._wrong(layout, kind, words, descriptor)
        elif _may_stay_away(descriptor):
            return
        else:
            known = self._has_origin(digest)
            words = f"{digest} is absent: " + ("a remote has it" if known else "no remote is known")
            severity = Severity.NOTE if known else Severity.WARNING
            yield self._wrong(layout, Kind.ABSENT_LAYER, words, descriptor, severity=severity)

    def _other_files(
        self, layout: Layout, files: dict[Digest, os.stat_result]
    ) -> Iterator[Finding]:
        """Read the layout's files that are not the pool's; bad ones are taken out of `files`."""
        for digest, own in list(files.items()):
            pool = self._pool(digest)
            if pool is not None and os.path.samestat(own, pool):
                continue
            if not stat.S_ISREG(own.st_mode):
                del files[digest]
                words = f"{digest} is not a regular file"
                yield self._wrong(layout, Kind.BAD_BLOB, words, Descriptor("", digest, 0))
                continue
            key = own.st_dev, own.st_ino
            if self._verifier.tally.is_bad(digest, own):
                del files[digest]  # found once
                continue
            if key not in self._seen:
                finding = self._read_other(layout, digest)
                self._seen[key] = finding is None
                if finding is not None:
                    yield finding
            if not self._seen[key]:
                del files[digest]
                continue
            self.copies.setdefault(digest, layout.name)
            if pool is not None and own.st_dev == pool.st_dev:
                words = f"{digest} is another file than the pool's"
                size = own.st_blocks * BLOCK
                yield Finding(
                    Severity.NOTE,
                    Kind.NOT_SHARED,
                    str(layout.name),
                    words,
                    digest,
                    layout.name,
                    size,
                )

    def _read_other(self, layout: Layout, digest: Digest) -> Finding | None:
        path = self._store.layouts / layout.name / BLOBS / digest.algorithm
        where = f"{layout.name}/{BLOBS}/{digest.algorithm}/{digest.encoded}"
        try:
            directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                file = open_file(digest.encoded, directory)
            finally:
                os.close(directory)
        except (FileNotFoundError, InvalidContent):
            return None  # removed or replaced meanwhile
        try:
            found = self._verifier.examine_other(digest, file)
            if not found.is_good:
                return bad_blob(where, digest, os.fstat(file), found)
        except OSError as error:
            return Finding(
                Severity.ERROR, Kind.UNREADABLE_BLOB, where, message_of(error), digest, layout.name
            )
        finally:
            os.close(file)
        return None

    def _unreadable(
        self, layout: Layout, descriptor: Descriptor, error: InvalidContent | OSError
    ) -> Iterator[Finding]:
        """Yield what a document that cannot be used means; it may have rotted since it was read."""
        if not isinstance(error, DigestMismatch | OSError):
            yield self._wrong(layout, Kind.BAD_DOCUMENT, str(error), descriptor)
            return
        digest = descriptor.digest
        if digest in self._verifier.tally.bad:
            self.incomplete[layout.name] = None
            return  # found once
        try:
            file = layout.open(digest)
            try:
                found = self._verifier.examine_other(digest, file)
                if not found.is_good:
                    self.incomplete[layout.name] = None
                    where = f"{BLOBS}/{digest.algorithm}/{digest.encoded}"
                    yield bad_blob(where, digest, os.fstat(file), found)
            finally:
                os.close(file)
        except NotFound:
            return  # removed meanwhile
        except OSError as refused:
            yield self._wrong(layout, Kind.UNREADABLE_BLOB, message_of(refused), descriptor)

    def _marker(self, directory: Directory) -> Iterator[Finding]:
        words = "is absent"
        if directory.has_marker:
            try:
                with (self._store.layouts / directory.name / MARKER).open("rb") as file:
                    document = parse_object(file.read(MAX_DOCUMENT + 1), MARKER)
                version = string(document, "imageLayoutVersion", MARKER)
                words = f"has layout version {quoted(version)}, expected {LAYOUT_VERSION}"
                if version == LAYOUT_VERSION:
                    return
            except (InvalidContent, OSError) as error:
                words = message_of(error)
        layout = self._store.layout(directory.name)
        yield self._wrong(layout, Kind.NO_MARKER, f"{MARKER} {words.removeprefix(MARKER).strip()}")

    def _wrong(
        self,
        layout: Layout,
        kind: Kind,
        detail: str,
        descriptor: Descriptor | None = None,
        *,
        severity: Severity = Severity.ERROR,
    ) -> Finding:
        digest = descriptor.digest if descriptor else None
        return Finding(severity, kind, str(layout.name), detail, digest, layout.name)

    def _files(self, layout: Layout) -> Iterator[tuple[Digest, os.stat_result]]:
        with suppress(NotFound, InvalidContent):
            yield from layout.linked()

    def _pool(self, digest: Digest) -> os.stat_result | None:
        try:
            return self._store.blobs.stat(digest)
        except NotFound:
            return None

    def _has_origin(self, digest: Digest) -> bool:
        with suppress(InvalidContent):  # remotes.json is malformed, which is said once
            return bool(self._store.remotes.places(digest))
        return False

    def _quarantined(self) -> Collection[Digest]:
        if self._lost is None:
            self._lost = frozenset(each.digest for each in self._store.quarantine)
        return self._lost


def _strays(store: Store, layout: Layout) -> Iterator[Finding]:
    for algorithm in HEX_LENGTHS:
        path = store.layouts / layout.name / BLOBS / algorithm
        with suppress(FileNotFoundError, NotADirectoryError):
            for name in sorted(os.listdir(path)):
                if not is_encoded(algorithm, name):
                    words = "a process that died left it" if is_spare(name) else "not a blob"
                    where = f"{layout.name}/{BLOBS}/{algorithm}/{name}"
                    yield Finding(Severity.NOTE, Kind.STRAY, where, words, layout=layout.name)


def _may_stay_away(descriptor: Descriptor) -> bool:
    return _NONDISTRIBUTABLE in descriptor.media_type or _FOREIGN in descriptor.media_type
