"""Where the Docker daemon is: DOCKER_HOST, docker's contexts, and the certificates of both.

The order is that of docker's own client: what was asked for, DOCKER_HOST, DOCKER_CONTEXT, the
current context of its configuration, the socket in /var/run.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ...oci.digest import Digest
from ...oci.document import MAX_DOCUMENT, Object, as_object, parse_object, string
from ...oci.errors import InvalidContent, NotFound
from ...oci.wording import quoted
from ..access import Access
from ..words import words_of

DEFAULT_HOST = "unix:///var/run/docker.sock"
DEFAULT_CONTEXT = "default"

_PORT, _TLS_PORT = 2375, 2376
_REFUSED = {
    "fd": "names a socket that only the daemon itself has",
    "npipe": "names a pipe of Windows",
}


@dataclass(frozen=True, slots=True)
class Certificates:
    """How a daemon shows who it is, and who we are.

    Attributes:
        directory: where `ca.pem`, `cert.pem` and `key.pem` are, each of which may be absent.
        verify: whether the daemon's certificate is checked, by `ca.pem` or else by the
            system's authorities.
    """

    directory: Path
    verify: bool

    def context(self) -> ssl.SSLContext:
        """Return what a connection needs.

        Raises:
            InvalidContent: the files are no certificates and key.
        """
        ca, cert, key = (self.directory / f"{name}.pem" for name in ("ca", "cert", "key"))
        try:
            context = ssl.create_default_context(cafile=str(ca) if ca.exists() else None)
            if cert.exists() or key.exists():
                context.load_cert_chain(cert, key)
        except OSError as error:  # ssl's own errors too
            words = f"{self.directory} has no certificates that can be used: {words_of(error)}"
            raise InvalidContent(words) from error
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


@dataclass(frozen=True, slots=True)
class Host:
    """An address of a daemon.

    Attributes:
        url: as a user writes it.
        address: the path of a socket, or host and port.
        certificates: None when it is spoken to in plain text.
        origin: who said so, as the end of a message; empty when the user did.
    """

    url: str
    address: str | tuple[str, int]
    certificates: Certificates | None = None
    origin: str = ""

    @classmethod
    def parse(cls, url: str, certificates: Certificates | None = None, origin: str = "") -> Host:
        """Read `unix:///path` or `tcp://host:port`.

        Raises:
            InvalidContent: it is neither.
        """
        scheme, _, rest = url.partition("://")
        said = origin and f" ({origin})"
        if scheme == "ssh":
            raise InvalidContent(
                f"{url} is not spoken; ssh -nNT -L /tmp/docker.sock:/var/run/docker.sock "
                f"{rest.partition('/')[0]} makes it unix:///tmp/docker.sock"
                f"{said}"
            )
        if scheme in _REFUSED:
            raise InvalidContent(f"{url} {_REFUSED[scheme]}{said}")
        if scheme == "unix" and rest:
            return cls(url, rest, None, origin)
        try:
            parts = urlsplit(url)
            if scheme == "tcp" and parts.hostname and parts.path in ("", "/"):
                port = parts.port or (_TLS_PORT if certificates else _PORT)
                return cls(url, (parts.hostname, port), certificates, origin)
        except ValueError:
            pass
        words = f"not a docker host such as unix:///path or tcp://host:port: {quoted(url)}"
        raise InvalidContent(f"{words}{said}")

    @property
    def is_near(self) -> bool:
        """Whether sending to it costs no network."""
        if isinstance(self.address, str):
            return True
        try:
            return ipaddress.ip_address(self.address[0]).is_loopback
        except ValueError:
            return self.address[0] == "localhost"

    def __str__(self) -> str:
        return f"docker daemon at {self.url}{self.origin and f' ({self.origin})'}"


def find_host(access: Access, environment: Mapping[str, str] = os.environ) -> Host:
    """Return the daemon that these settings, the environment and docker's files mean.

    DOCKER_API_VERSION means nothing here: what is asked is the same in all versions.

    Raises:
        NotFound: there is no such context.
        InvalidContent: an address, or docker's configuration, is malformed.
    """
    directory = Path(environment.get("DOCKER_CONFIG") or Path.home() / ".docker")
    if access.docker_host:
        return Host.parse(access.docker_host, _certificates(environment, directory))
    if host := environment.get("DOCKER_HOST"):
        return Host.parse(host, _certificates(environment, directory), "from DOCKER_HOST")
    name, origin = environment.get("DOCKER_CONTEXT", ""), "from DOCKER_CONTEXT"
    if not name:
        name, origin = _current_context(directory), "the current docker context"
    if name and name != DEFAULT_CONTEXT:
        return _context(directory / "contexts", name, origin)
    certificates = _certificates(environment, directory)
    return Host.parse(DEFAULT_HOST, certificates, "the default, as DOCKER_HOST is not set")


def _certificates(environment: Mapping[str, str], directory: Path) -> Certificates | None:
    """Return what docker's variables say about TLS."""
    verify = bool(environment.get("DOCKER_TLS_VERIFY"))
    if not verify and not environment.get("DOCKER_TLS"):
        return None
    return Certificates(Path(environment.get("DOCKER_CERT_PATH") or directory), verify)


def _current_context(directory: Path) -> str:
    path = directory / "config.json"
    try:
        document = _read(path)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    return string(document, "currentContext", str(path))


def _context(contexts: Path, name: str, origin: str) -> Host:
    """Read a context; its directories have the digest of its name."""
    identifier = Digest.of(name.encode()).encoded
    path = contexts / "meta" / identifier / "meta.json"
    try:
        document = _read(path)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"docker context {quoted(name)} ({origin})") from None
    what = f"docker context {quoted(name)}"
    endpoints = as_object(document.get("Endpoints"), f"Endpoints of {what}")
    endpoint = as_object(endpoints.get("docker"), f"endpoint docker of {what}")
    insecure = endpoint.get("SkipTLSVerify") is True
    directory = contexts / "tls" / identifier / "docker"
    certificates = None
    if insecure or directory.is_dir():
        certificates = Certificates(directory, verify=not insecure)
    return Host.parse(string(endpoint, "Host", what) or DEFAULT_HOST, certificates, what)


def _read(path: Path) -> Object:
    with path.open("rb") as file:
        return parse_object(file.read(MAX_DOCUMENT + 1), str(path))
