"""The part of the Docker Engine API that publishing needs, one method per endpoint."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from http import HTTPStatus
from urllib.parse import quote, urlencode, urlsplit

from ...oci.digest import Digest
from ...oci.document import as_object, members, parse_object, string
from ...oci.errors import InvalidContent, RegistryError, RegistryUnavailable
from ...oci.platform import Platform
from ...oci.reference import Reference
from ...oci.wording import plain
from ...store.blobs import READ_SIZE
from ..access import Access
from ..deadline import limit
from ..tarstream import TarStream
from ..words import words_of

LOAD_TIMEOUT = 900.0  # seconds between two words of a daemon that unpacks a layer
MAX_ANSWER = 32 << 20  # bytes; a list of 10,000 images has about 5 MB
MAX_MESSAGE = 64 << 10  # bytes of one message of a load
DEFAULT_HOST = "unix:///var/run/docker.sock"
DEFAULT_PORT = 2375


class Engine:
    """A Docker daemon at `unix:///path` or `tcp://host:port`. Not thread-safe.

    Every method raises RegistryUnavailable when the daemon does not answer, and
    RegistryError with its own words when it refuses.

    Attributes:
        name: how messages call it.
        api_version: what it stated in its last answer.
    """

    def __init__(self, host: str, timeout: tuple[float, float]) -> None:
        self._address = _parse(host)
        self._timeout = timeout
        self.name = f"docker daemon at {host}"
        self.api_version: tuple[int, ...] = ()

    def platform(self) -> Platform:
        """Return what the daemon runs on (GET /version)."""
        with self._answer("GET", "/version") as answer:
            document = parse_object(self._body(answer), f"version of {self.name}")
        os, architecture = (string(document, key, self.name) for key in ("Os", "Arch"))
        return Platform(os, architecture)

    def image(self, name: str) -> tuple[Digest, ...] | None:
        """Return the diffIDs of an image, or None if there is none (GET /images/…/json)."""
        with self._answer("GET", f"/images/{quote(name)}/json") as answer:
            if answer.status == HTTPStatus.NOT_FOUND:
                return None
            self._check(answer)
            document = parse_object(self._body(answer), f"image {name} of {self.name}")
        layers = as_object(document.get("RootFS"), f"RootFS of {name}").get("Layers")
        return tuple(Digest.parse(str(diff_id)) for diff_id in members(layers, name))

    def images(self) -> list[str]:
        """Return the identifiers of all images (GET /images/json)."""
        with self._answer("GET", "/images/json?all=1") as answer:
            self._check(answer)
            body = self._body(answer)
        what = f"list of images of {self.name}"
        try:
            entries = members(json.loads(body), what)
        except (ValueError, RecursionError) as error:
            raise InvalidContent(f"{what} is not JSON: {error}") from error
        return [string(as_object(entry, what), "Id", what) for entry in entries]

    def tag(self, name: str, reference: Reference) -> None:
        """Give an image another name (POST /images/…/tag)."""
        repository = f"{reference.registry}/{reference.repository}"
        query = urlencode({"repo": repository, "tag": reference.tag})
        with self._answer("POST", f"/images/{quote(name)}/tag?{query}") as answer:
            self._check(answer, HTTPStatus.CREATED)

    def load(self, archive: TarStream) -> None:
        """Stream an archive of images (POST /images/load).

        A refusal comes with status 200, as a message of its own.
        """
        with self._connection() as connection:
            connection.putrequest("POST", "/images/load?quiet=0", skip_accept_encoding=True)
            connection.putheader("Content-Type", "application/x-tar")
            connection.putheader("Content-Length", str(archive.size))
            connection.endheaders()
            try:
                for data in archive:
                    connection.send(data)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it has seen enough, and says why
            connection.sock.settimeout(LOAD_TIMEOUT)
            with limit(connection.sock, LOAD_TIMEOUT):
                answer = connection.getresponse()
            with answer:
                self._check(answer)
                self._read_messages(answer)

    def _read_messages(self, answer: http.client.HTTPResponse) -> None:
        """Read the messages of a load up to its end."""
        what = f"answer of {self.name}"
        loaded = False
        while line := answer.readline(MAX_MESSAGE):
            if not line.strip():
                continue
            message = parse_object(line, what)
            if "errorDetail" in message or "error" in message:
                raise RegistryError(self.name, 0, (), plain(string(message, "error", what)))
            loaded = loaded or string(message, "stream", what).startswith("Loaded image")
        if not loaded:
            raise RegistryUnavailable(self.name, 0, (), "the load ended without a result")

    @contextmanager
    def _answer(self, method: str, path: str) -> Generator[http.client.HTTPResponse]:
        with self._connection() as connection:
            connection.request(method, path)
            with limit(connection.sock, self._timeout[1]), connection.getresponse() as answer:
                version = answer.headers.get("Api-Version", "").split(".")
                self.api_version = tuple(int(part) for part in version if part.isdecimal())
                yield answer

    @contextmanager
    def _connection(self) -> Generator[http.client.HTTPConnection]:
        """Connect, and turn what fails in the block into what the caller can act on."""
        connection = http.client.HTTPConnection("docker")
        connection.sock = self._connect()
        try:
            yield connection
        except TimeoutError as error:
            raise RegistryUnavailable(self.name, 0, (), "no answer came in time") from error
        except ConnectionError as error:
            raise RegistryUnavailable(self.name, 0, (), words_of(error)) from error
        except http.client.HTTPException as error:
            words = f"the connection was lost: {type(error).__name__}"
            raise RegistryUnavailable(self.name, 0, (), words) from error
        finally:
            connection.close()

    def _connect(self) -> socket.socket:
        try:
            return self._socket()
        except UnicodeError as error:  # of the codec for host names
            raise RegistryError(self.name, 0, (), "not a host name") from error
        except PermissionError as error:
            raise RegistryError(self.name, 0, (), words_of(error)) from error
        except OSError as error:
            raise RegistryUnavailable(self.name, 0, (), words_of(error)) from error

    def _socket(self) -> socket.socket:
        connect, read = self._timeout
        if isinstance(self._address, str):
            found = socket.socket(socket.AF_UNIX)
            try:
                found.settimeout(connect)
                found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, READ_SIZE)  # twice as fast
                found.connect(self._address)
            except BaseException:
                found.close()
                raise
        else:
            found = socket.create_connection(self._address, connect)
        found.settimeout(read)
        return found

    def _check(self, answer: http.client.HTTPResponse, expected: int = HTTPStatus.OK) -> None:
        if answer.status == expected:
            return
        words = ""
        try:
            document = parse_object(answer.read(MAX_MESSAGE), self.name)
            words = string(document, "message", self.name)
        except InvalidContent:
            words = answer.reason
        raise RegistryError(self.name, answer.status, (), plain(words))

    def _body(self, answer: http.client.HTTPResponse) -> bytes:
        body = answer.read(MAX_ANSWER + 1)
        if len(body) > MAX_ANSWER:
            raise InvalidContent(f"{self.name} answered with over {MAX_ANSWER} bytes")
        if answer.length:
            raise http.client.IncompleteRead(body, answer.length)
        return body


def docker_host(access: Access) -> str:
    """Return where the daemon is that these settings and the environment mean."""
    return access.docker_host or os.environ.get("DOCKER_HOST") or DEFAULT_HOST


def _parse(host: str) -> str | tuple[str, int]:
    """Return the path of a socket, or host and port."""
    scheme, _, rest = host.partition("://")
    if scheme == "unix" and rest:
        return rest
    try:
        parts = urlsplit(host)
        if scheme == "tcp" and parts.hostname:
            return parts.hostname, parts.port or DEFAULT_PORT
    except ValueError:
        pass
    raise InvalidContent(f"not a docker host such as unix:///path or tcp://host:port: {host!r}")
