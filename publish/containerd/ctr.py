"""What publishing needs of containerd, one method for each use of `ctr`.

Images are records: a name and the descriptor of a root. What the root refers to is in
labels of the content, by which containerd's garbage collector finds it too
(containerd's docs/garbage-collection.md, "Garbage collection labels").
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Self

from ...oci.digest import Digest
from ...oci.document import MAX_DOCUMENT
from ...oci.errors import (
    DigestMismatch,
    InvalidContent,
    NotFound,
    RegistryError,
    RegistryUnavailable,
)
from ...oci.wording import quoted
from ..access import Access
from ..command import Command
from ..source import Stream
from ..words import words_of

DEFAULT_ADDRESS = "/run/containerd/containerd.sock"
TIMEOUT = 900.0  # seconds; while layers are unpacked nothing is said

_CHILD = "containerd.io/gc.ref.content"  # begins the labels that refer to other content
_STATUS = re.compile(r" (complete|incomplete|unavailable) \(\d+/(?:\d+|\?)\) .* (true|false) *$")


@dataclass(frozen=True, slots=True)
class Record:
    """The root of an image."""

    media_type: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class Status:
    """What `images check` says of an image.

    Attributes:
        ready: whether all that this machine needs of it is there, and unpacked.
    """

    digest: Digest
    ready: bool


class Ctr:
    """One namespace of a containerd. Thread-safe.

    Every method raises RegistryUnavailable when containerd does not answer, and
    RegistryError with its own words when it refuses, or when there is no `ctr`.

    Attributes:
        name: how messages call it.
    """

    def __init__(self, address: str, namespace: str, connect: float = 10.0) -> None:
        self._address = address.removeprefix("unix://")
        self.name = f"containerd at {self._address}"
        arguments = ("ctr", "--address", self._address, "--namespace", namespace)
        self._command = Command(
            (*arguments, "--connect-timeout", f"{connect}s"), self.name, TIMEOUT
        )

    @classmethod
    def of(cls, access: Access) -> Self:
        """Return the one that these settings and the environment mean, if it is there."""
        address = access.containerd or os.environ.get("CONTAINERD_ADDRESS") or DEFAULT_ADDRESS
        found = cls(address, access.namespace, access.timeout[0])
        found.check_socket()
        return found

    def check_socket(self) -> None:
        """See that somebody listens: `ctr` itself would try again and again."""
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(self._address)
            except PermissionError as error:
                raise RegistryError(self.name, 0, (), words_of(error)) from error
            except OSError as error:
                raise RegistryUnavailable(self.name, 0, (), words_of(error)) from error

    def records(self) -> dict[str, Record]:
        """Return all images by their names."""
        found: dict[str, Record] = {}
        for line in self._table("images", "ls"):
            name, media_type, digest = self._columns(line)
            found[name] = Record(media_type, Digest.parse(digest))
        return found

    def status(self, name: str) -> Status | None:
        """Return what is there of an image for this machine, or None if there is no such record."""
        for line in self._table("images", "check", f'name=="{name}"'):
            if status := _STATUS.search(line):
                digest = Digest.parse(self._columns(line)[2])
                return Status(digest, status.groups() == ("complete", "true"))
        return None

    def content(self) -> dict[Digest, tuple[Digest, ...]]:
        """Return the digests of all content, and what each refers to."""
        found: dict[Digest, tuple[Digest, ...]] = {}
        for line in self._table("content", "ls"):
            digest, *_, labels = line.split("\t")
            children = [text for text in labels.split(",") if text.startswith(_CHILD)]
            found[Digest.parse(digest)] = tuple(
                Digest.parse(text.partition("=")[2]) for text in children
            )
        return found

    def open(self, digest: Digest) -> Stream:
        """Start reading some content; the caller closes it.

        Raises:
            NotFound: it is absent.
        """
        try:
            return self._command.open("content", "get", str(digest))
        except RegistryError as error:
            if error.message.endswith(f"{digest}: not found"):
                raise NotFound(digest) from error
            raise

    def read(self, digest: Digest) -> bytes:
        """Return a manifest or index, which has this digest.

        Raises:
            NotFound: it is absent.
            InvalidContent: it has over `MAX_DOCUMENT` bytes, or is damaged.
        """
        raw = bytearray()
        with closing(self.open(digest)) as stream:
            while data := stream.read(MAX_DOCUMENT + 1 - len(raw)):
                raw += data
        if len(raw) > MAX_DOCUMENT:
            raise InvalidContent(f"{digest} has over {MAX_DOCUMENT} bytes")
        if (actual := Digest.of(bytes(raw), digest.algorithm)) != digest:
            raise DigestMismatch(digest, actual)
        return bytes(raw)

    def load(self, archive: Iterable[bytes], *, unpack: bool) -> None:
        """Take in an archive, for all platforms; its `index.json` says the names."""
        more = () if unpack else ("--no-unpack",)
        self._command.run("images", "import", "--all-platforms", *more, "-", feed=archive)

    def remove(self, name: str) -> None:
        """Remove a record; a name that is not there is fine."""
        self._command.run("images", "rm", name)

    def _table(self, *arguments: str) -> list[str]:
        """Return the lines of a table without its header."""
        return self._command.run(*arguments).decode(errors="replace").splitlines()[1:]

    def _columns(self, line: str) -> tuple[str, str, str]:
        """Return the first columns: name, media type, digest."""
        columns = line.split(maxsplit=3)
        if len(columns) < 4:
            raise InvalidContent(f"{self.name}: no line of images: {quoted(line)}")
        return columns[0], columns[1], columns[2]
