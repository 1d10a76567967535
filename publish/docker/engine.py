"""The part of the Docker Engine API that publishing needs, one method per endpoint."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Generator, Iterable
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Self
from urllib.parse import quote, urlencode

from ...oci.digest import Digest
from ...oci.document import Object, as_object, members, parse_json, parse_object, string
from ...oci.errors import InvalidContent, RegistryError, RegistryUnavailable
from ...oci.platform import Platform
from ...oci.reference import DEFAULT_NAMESPACE, DEFAULT_REGISTRY, Reference
from ...oci.wording import plain
from ..deadline import limit
from ..source import Stream
from .connection import Connections
from .host import Host

if TYPE_CHECKING:
    from ..archives.tarstream import TarStream

LOAD_TIMEOUT = 900.0  # seconds between two words of a daemon that unpacks a layer
SAVE_TIMEOUT = 900.0  # seconds until the first byte: it copies all layers before, at disk speed
MAX_ANSWER = 32 << 20  # bytes; a list of 10,000 images has about 5 MB
MAX_MESSAGE = 64 << 10  # bytes of one message of a load
MAX_MESSAGES = 64 << 20  # bytes of all; a layer gives about ten of 200 bytes a second

_CONTAINERD_SINCE = (1, 42)  # API version of the first release that may have that image store
_CONTAINERD_STORE = ["driver-type", "io.containerd.snapshotter.v1"]
_PODMAN = "Libpod-API-Version"  # a header of all its answers


@dataclass(frozen=True, slots=True)
class Found:
    """An image of a daemon.

    Attributes:
        digest: its identifier: the digest of its config in the classic store, of its
            manifest or index in containerd's.
        diff_ids: of its layers, the lowest first.
        names: those it has now, as docker writes them.
    """

    digest: Digest
    diff_ids: tuple[Digest, ...]
    names: tuple[str, ...]


class Engine:
    """A Docker daemon. Not thread-safe; the caller closes it.

    Every method raises RegistryUnavailable when the daemon does not answer, and
    RegistryError with its own words when it refuses.

    Attributes:
        host: where it is; messages call it so.
        api_version: what it stated in its last answer.
        is_podman: whether its last answer was podman's, which plays Docker.
    """

    def __init__(self, host: Host, timeout: tuple[float, float]) -> None:
        self._connections = Connections(host, timeout)
        self._timeout = timeout[1]
        self.host = host
        self.name = str(host)
        self.api_version: tuple[int, ...] = ()
        self.is_podman = False

    def reserve(self, count: int) -> None:
        """Connect `count` times ahead, for a process that is about to give privileges up."""
        self._connections.reserve(count)

    def close(self) -> None:
        """Close the connection."""
        self._connections.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def platform(self) -> Platform:
        """Return what the daemon runs on (GET /version)."""
        document = self._version()
        os, architecture = (string(document, key, self.name) for key in ("Os", "Arch"))
        return Platform(os, architecture)

    def version(self) -> str:
        """Return the version of its release (GET /version)."""
        return string(self._version(), "Version", self.name)

    def has_containerd_store(self) -> bool:
        """Tell which image store it has (GET /info), unless its last answer ruled one out."""
        if self.is_podman or () < self.api_version < _CONTAINERD_SINCE:
            return False
        with self._answer("GET", "/info") as answer:
            self._check(answer)
            document = parse_object(self._body(answer), f"info of {self.name}")
        return _CONTAINERD_STORE in members(document.get("DriverStatus"), "DriverStatus")

    def inspect(self, name: str) -> Object | None:
        """Return all that is told of an image, or None if there is none (GET /images/…/json)."""
        with self._answer("GET", f"/images/{quote(name)}/json") as answer:
            if answer.status == HTTPStatus.NOT_FOUND:
                self._body(answer)
                return None
            self._check(answer)
            return parse_object(self._body(answer), f"image {name} of {self.name}")

    def history(self, name: str) -> list[Object]:
        """Return how an image came to be, the latest first (GET /images/…/history)."""
        what = f"history of {name} of {self.name}"
        return self._list(f"/images/{quote(name)}/history", what)

    def image(self, name: str) -> Found | None:
        """Return an image, or None if there is none."""
        document = self.inspect(name)
        if document is None:
            return None
        identifier = Digest.parse(string(document, "Id", name))
        layers = as_object(document.get("RootFS"), f"RootFS of {name}").get("Layers")
        return Found(
            identifier,
            tuple(Digest.parse(str(layer)) for layer in members(layers, name)),
            tuple(str(tag) for tag in members(document.get("RepoTags"), name)),
        )

    def images(self) -> list[str]:
        """Return the identifiers of all images (GET /images/json)."""
        what = f"list of images of {self.name}"
        return [string(entry, "Id", what) for entry in self._list("/images/json?all=1", what)]

    def usage(self) -> Object:
        """Return what images cost, by the daemon's own account (GET /system/df).

        From API version 1.52 on the answer has another form. Before 1.42 containers and volumes
        are looked at, too, which can take minutes.
        """
        with self._answer("GET", "/system/df?type=image&verbose=1") as answer:
            self._check(answer)
            what = f"disk usage of {self.name}"
            return as_object(parse_json(self._body(answer), what), what)

    def complete(self, name: str | None) -> frozenset[Digest]:
        """Return which manifests containerd's store has all blobs of (GET /images/json).

        Before API version 1.47 an image that lacks some is not listed, and one that is
        may be an index of which one platform is there. That costs 10 ms an image, so
        that a name, as docker writes it, is worth giving.
        """
        query = {"manifests": "1"}
        if name is not None:
            query["filters"] = json.dumps({"reference": [name]})
        what = f"list of images of {self.name}"
        found: set[Digest] = set()
        for entry in self._list(f"/images/json?{urlencode(query)}", what):
            if entry.get("Manifests") is None:
                found.add(Digest.parse(string(entry, "Id", what)))
                continue
            manifests = (as_object(m, what) for m in members(entry["Manifests"], what))
            found.update(
                Digest.parse(string(manifest, "ID", what))
                for manifest in manifests
                if manifest.get("Available") is True
            )
        return frozenset(found)

    def tag(self, name: str, reference: Reference) -> None:
        """Give an image another name (POST /images/…/tag).

        Raises:
            InvalidContent: it is a digest.
        """
        check_has_tag(reference)
        repository = f"{reference.registry}/{reference.repository}"
        query = urlencode({"repo": repository, "tag": reference.tag})
        with self._answer("POST", f"/images/{quote(name)}/tag?{query}") as answer:
            self._check(answer, HTTPStatus.CREATED)
            self._body(answer)

    def remove(self, reference: Reference) -> None:
        """Take a name away, and the image if that was the last; absent is success (DELETE …)."""
        with self._answer("DELETE", f"/images/{quote(str(reference))}") as answer:
            if answer.status != HTTPStatus.NOT_FOUND:
                self._check(answer)
            self._body(answer)

    @contextmanager
    def save(self, name: str) -> Generator[Stream]:
        """Yield an archive of an image (GET /images/…/get), as `docker save` writes it.

        When the block is left early the daemon stops.
        """
        with self._connections.opened() as connection:
            used = connection.sock  # which the connection forgets when the answer ends it
            connection.request("GET", f"/images/{quote(name)}/get")
            used.settimeout(SAVE_TIMEOUT)
            with limit(used, SAVE_TIMEOUT):
                answer = connection.getresponse()
            with answer:
                self._check(answer)
                used.settimeout(self._timeout)
                yield _Body(answer, used, self._timeout)

    def load(self, archive: TarStream) -> None:
        """Stream an archive of images (POST /images/load).

        A refusal comes with status 200, as a message of its own. What reading the
        archive raises ends the request, and the daemon then keeps nothing of it.
        """
        with self._connections.opened() as connection:
            connection.putrequest("POST", "/images/load?quiet=0", skip_accept_encoding=True)
            connection.putheader("Content-Type", "application/x-tar")
            connection.putheader("Content-Length", str(archive.size))
            connection.endheaders()
            with closing(archive.stream()) as blocks:
                self._send(connection, blocks)
            used = connection.sock  # which the connection forgets when the answer ends it
            used.settimeout(LOAD_TIMEOUT)
            with limit(used, LOAD_TIMEOUT):
                answer = connection.getresponse()
            with answer:
                self._check(answer)
                self._read_messages(answer, used)

    def _send(self, connection: http.client.HTTPConnection, blocks: Iterable[bytes]) -> None:
        for data in blocks:
            try:
                connection.send(data)
            except (BrokenPipeError, ConnectionResetError):
                return  # it has seen enough, and says why

    def _read_messages(self, answer: http.client.HTTPResponse, connection: socket.socket) -> None:
        """Read the messages of a load up to its end."""
        what = f"answer of {self.name}"
        loaded = False
        size = 0
        while True:
            with limit(connection, LOAD_TIMEOUT):
                line = answer.readline(MAX_MESSAGE)
            size += len(line)
            if size > MAX_MESSAGES:
                raise InvalidContent(f"{what} has over {MAX_MESSAGES} bytes")
            if not line:
                break
            if not line.strip():
                continue
            message = parse_object(line, what)
            words = string(message, "stream", what)
            if "errorDetail" in message or "error" in message:
                raise RegistryError(self.name, 0, (), plain(string(message, "error", what)))
            if words.startswith("Error "):  # "unpacking image": containerd's store goes on then
                raise RegistryError(self.name, 0, (), plain(words))
            loaded = loaded or words.startswith("Loaded image")
        if not loaded:
            raise RegistryUnavailable(self.name, 0, (), "the load ended without a result")

    def _version(self) -> Object:
        with self._answer("GET", "/version") as answer:
            return parse_object(self._body(answer), f"version of {self.name}")

    def _list(self, path: str, what: str) -> list[Object]:
        with self._answer("GET", path) as answer:
            self._check(answer)
            entries = members(parse_json(self._body(answer), what), what)
        return [as_object(entry, what) for entry in entries]

    @contextmanager
    def _answer(self, method: str, path: str) -> Generator[http.client.HTTPResponse]:
        with self._connections.answer(method, path) as answer:
            version = answer.headers.get("Api-Version", "").split(".")
            self.api_version = tuple(int(part[:9]) for part in version if part.isdecimal())
            self.is_podman = _PODMAN in answer.headers
            yield answer

    def _check(self, answer: http.client.HTTPResponse, expected: int = HTTPStatus.OK) -> None:
        if answer.status == expected:
            return
        raw = answer.read(MAX_MESSAGE)
        try:
            words = string(parse_object(raw, self.name), "message", self.name)
        except InvalidContent:
            words = raw.decode(errors="replace").strip() or answer.reason
        raise RegistryError(self.name, answer.status, (), plain(words))

    def _body(self, answer: http.client.HTTPResponse) -> bytes:
        body = answer.read(MAX_ANSWER + 1)
        if len(body) > MAX_ANSWER:
            raise InvalidContent(f"{self.name} answered with over {MAX_ANSWER} bytes")
        if answer.length:
            raise http.client.IncompleteRead(body, answer.length)
        return body


class _Body:
    """What a daemon sends, each read in time."""

    def __init__(
        self, answer: http.client.HTTPResponse, connection: socket.socket, timeout: float
    ) -> None:
        self._answer = answer
        self._connection = connection
        self._timeout = timeout

    def read(self, size: int, /) -> bytes:
        with limit(self._connection, self._timeout):
            return self._answer.read(size)

    def close(self) -> None:
        self._answer.close()


def check_has_tag(reference: Reference) -> None:
    """Refuse a name that only registries have.

    Raises:
        InvalidContent: it is a digest.
    """
    if reference.digest is not None:
        raise InvalidContent(f"{reference}: a docker daemon gives names by tag only")


def familiar(reference: Reference) -> str:
    """Return the name as docker writes it, which is what its filters match."""
    name = f"{reference.repository}:{reference.tag}"
    if reference.registry != DEFAULT_REGISTRY:
        return f"{reference.registry}/{name}"
    return name.removeprefix(f"{DEFAULT_NAMESPACE}/")
