"""remotes.json: registries that have blobs for this store, and whence lazy images came.

A file rather than a table of index.sqlite, since an image whose layers were left where they
are is lost without it. It holds no credentials.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from ..oci.digest import Digest
from ..oci.document import MAX_DOCUMENT, Object, as_object, members, parse_object, string
from ..oci.errors import InvalidContent, NotFound
from ..oci.reference import Reference
from ..oci.wording import quoted
from .disk import Disk
from .lock import Lock

FILE = "remotes.json"

Version = tuple[int, int, int]  # inode, time of the last change in ns, size
_ABSENT: Version = (0, 0, 0)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True, order=True)
class RepositoryName:
    """A registry and a repository in it; Docker's defaults are filled in."""

    registry: str
    repository: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `registry/repository`.

        Raises:
            InvalidContent: it is malformed, or has a tag or digest.
        """
        if "@" in text or ":" in text.rpartition("/")[2]:
            raise InvalidContent(f"expected a repository without tag or digest: {text[:300]!r}")
        return cls.of(Reference.parse(text))

    @classmethod
    def of(cls, reference: Reference) -> Self:
        """Return the repository of a reference."""
        return cls(reference.registry, reference.repository)

    def __str__(self) -> str:
        return f"{self.registry}/{self.repository}"


@dataclass(frozen=True, slots=True)
class Remote:
    """A repository that has blobs for the store, and what the user calls it."""

    name: str
    repository: RepositoryName


@dataclass(frozen=True, slots=True)
class _Content:
    """What the file says.

    Attributes:
        origins: the blobs that were left in each repository when an image was added.
    """

    remotes: tuple[Remote, ...] = ()
    origins: Mapping[RepositoryName, frozenset[Digest]] = field(
        default_factory=dict[RepositoryName, frozenset[Digest]]
    )


class Remotes:
    """Where blobs that the store lacks can be fetched. Thread-safe, and safe among processes."""

    def __init__(self, store: Path, disk: Disk, lock: Lock) -> None:
        self._store = store
        self._disk = disk
        self._lock = lock

    @property
    def are_used(self) -> bool:
        """Whether anything was ever to be fetched."""
        return (self._store / FILE).exists()

    def list(self) -> tuple[Remote, ...]:
        """Return the remotes in the order in which they are asked.

        Raises:
            InvalidContent: the file is malformed.
        """
        return self._read().remotes

    def add(self, name: str, repository: RepositoryName) -> None:
        """Add a remote as the last to be asked; it survives power loss.

        Raises:
            InvalidContent: the name is malformed, or is another repository's.
        """
        _check_name(name)
        with self._lock.held():
            content = self._read()
            for known in content.remotes:
                if known.name == name and known.repository != repository:
                    raise InvalidContent(f"the remote {name} is {known.repository} already")
            remotes = tuple(dict.fromkeys([*content.remotes, Remote(name, repository)]))
            self._write(replace(content, remotes=remotes))

    def remove(self, name: str) -> None:
        """Forget a remote.

        Raises:
            NotFound: there is none of this name.
        """
        with self._lock.held():
            content = self._read()
            left = tuple(remote for remote in content.remotes if remote.name != name)
            if left == content.remotes:
                raise NotFound(f"the remote {name}")
            self._write(replace(content, remotes=left))

    def places(self, digest: Digest) -> tuple[RepositoryName, ...]:
        """Return the repositories to ask for a blob: the remotes, then whence it was left out."""
        content = self._read()
        origins = [name for name, left in sorted(content.origins.items()) if digest in left]
        return tuple(dict.fromkeys([*(r.repository for r in content.remotes), *origins]))

    def note_origin(self, repository: RepositoryName, digests: Iterable[Digest]) -> None:
        """Note that blobs were left in a repository; that survives power loss.

        Raises:
            InvalidContent: the file would have over `MAX_DOCUMENT` bytes.
        """
        with self._lock.held():
            content = self._read()
            left = content.origins.get(repository, frozenset()).union(digests)
            if left:  # also when it is known: whoever noted it may have died before it was synced
                self._write(replace(content, origins={**content.origins, repository: left}))

    def version(self) -> Version:
        """Return what tells whether somebody wrote since; what they noted has its image by now."""
        if not self.are_used:
            return _ABSENT
        with self._lock.held():
            return self._version()

    def retain(self, digests: Collection[Digest], version: Version) -> None:
        """Forget whence blobs other than these were left out, unless it is another version.

        Only the rename is done with the store's lock held.
        """
        content = self._read()
        kept = {name: left & frozenset(digests) for name, left in content.origins.items()}
        kept = {name: left for name, left in kept.items() if left}
        if kept == content.origins:
            return
        raw = _raw(replace(content, origins=kept))
        directory = os.open(self._store, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            file = self._disk.create(directory, 0o644)
            try:
                self._disk.write(file, raw, 0)
                self._disk.sync(file)
                with self._lock.held():
                    if self._version() != version:
                        return
                    self._disk.place(file, directory, FILE)
            finally:
                self._disk.close(file)
            self._disk.sync(directory)
        finally:
            os.close(directory)

    def _version(self) -> Version:
        try:
            status = os.stat(self._store / FILE)
        except FileNotFoundError:
            return _ABSENT
        return status.st_ino, status.st_ctime_ns, status.st_size

    def _read(self) -> _Content:
        path = self._store / FILE
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_DOCUMENT + 1)
        except FileNotFoundError:
            return _Content()
        return _parse(parse_object(raw, str(path)), str(path))

    def _write(self, content: _Content) -> None:
        raw = _raw(content)
        if len(raw) > MAX_DOCUMENT:
            raise InvalidContent(
                f"{self._store / FILE} would have {len(raw)} bytes, at most {MAX_DOCUMENT} are read"
            )
        directory = os.open(self._store, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._disk.put(directory, FILE, raw)
            self._disk.sync(directory)
        finally:
            os.close(directory)


def _raw(content: _Content) -> bytes:
    return json.dumps(_document(content), indent=2).encode() + b"\n"


def _check_name(name: str) -> None:
    if _NAME.fullmatch(name) is None:
        raise InvalidContent(f"not a name for a remote: {quoted(name)}")


def _parse(document: Object, what: str) -> _Content:
    remotes: list[Remote] = []
    for entry in members(document.get("remotes"), f"remotes of {what}"):
        remote = as_object(entry, f"a remote of {what}")
        name = string(remote, "name", what)
        _check_name(name)
        remotes.append(Remote(name, RepositoryName.parse(string(remote, "repository", what))))
    origins: dict[RepositoryName, frozenset[Digest]] = {}
    for repository, left in as_object(document.get("origins", {}), f"origins of {what}").items():
        digests = members(left, f"{quoted(repository)} in origins of {what}")
        origins[RepositoryName.parse(repository)] = frozenset(
            Digest.parse(digest if isinstance(digest, str) else repr(digest)) for digest in digests
        )
    return _Content(tuple(remotes), origins)


def _document(content: _Content) -> Object:
    return {
        "remotes": [
            {"name": remote.name, "repository": str(remote.repository)}
            for remote in content.remotes
        ],
        "origins": {
            str(repository): sorted(map(str, left))
            for repository, left in sorted(content.origins.items())
        },
    }
