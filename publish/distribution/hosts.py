"""The host that answers for a registry, how it is spoken to, and what it may see."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ...oci.reference import DEFAULT_REGISTRY, Reference
from ..access import Access
from ..deadline import limit
from .certificates import Certificates, find_certificates
from .endpoint import Endpoint, is_loopback
from .proxies import Proxies
from .registries import Place, Registries
from .repository import Repository
from .transport import Authorizer, Fixed, Transport
from .urls import PORTS

if TYPE_CHECKING:
    from .realm import Realm

DOCKER_HUB = "registry-1.docker.io"  # where the registry called index.docker.io answers


@contextmanager
def open_repository(
    reference: Reference,
    access: Access,
    *,
    push: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> Generator[Repository]:
    """Open the repository of a reference, itself and no mirror, to pull, or also to `push`.

    Leaving the block closes its connections.

    Raises:
        InvalidContent: a file about registries or certificates is malformed.
        RegistryError: registries.conf blocks it.
        OSError: a file cannot be read.
    """
    place = Registries.read(environ).destination(reference)
    with open_place(place, access, push=push, environ=environ) as repository:
        yield repository


@contextmanager
def open_place(
    place: Place, access: Access, *, push: bool = False, environ: Mapping[str, str] = os.environ
) -> Generator[Repository]:
    """Open the repository of a place, as `open_repository` does."""
    registry, name = place.reference.registry, place.reference.repository
    host = DOCKER_HUB if registry == DEFAULT_REGISTRY else registry
    endpoint = endpoint_of(host, access, environ, insecure=place.insecure)

    def authorize() -> Authorizer:
        from .authorization import Authorization
        from .keychain import Keychain

        def open_realm(realm: Realm, authorization: Fixed) -> Transport:
            server = _server(realm, endpoint, access, environ)
            return Transport(server, access, authorization=authorization, environ=environ)

        return Authorization(
            endpoint,
            [f"repository:{name}:{'pull,push' if push else 'pull'}"],
            lambda: Keychain(access, environ).find(registry, name),
            open_realm,
            access.token_hosts,
        )

    authorization = _WhenChallenged(authorize)
    with Transport(endpoint, access, authorization=authorization, environ=environ) as transport:
        yield Repository(transport, name)


def pull_places(
    reference: Reference, access: Access, environ: Mapping[str, str] = os.environ
) -> list[tuple[Place, Access]]:
    """Return where an image can be had, in order, and how each place is reached.

    What the user said about the registry that was named is not meant for another one.

    Raises:
        InvalidContent: registries.conf is malformed.
        RegistryError: it blocks the image.
        OSError: it cannot be read.
    """
    other = replace(
        access,
        credentials=None,
        registry_token=None,
        plain_http=None,
        tls_verify=True,
        cert_dir=None,
    )
    return [
        (place, access if place.reference.registry == reference.registry else other)
        for place in Registries.read(environ).sources(reference)
    ]


def endpoint_of(
    host: str, access: Access, environ: Mapping[str, str], *, insecure: bool = False
) -> Endpoint:
    """Return how a host is spoken to.

    Without TLS is one for which that is said; one on this machine for which nobody has
    certificates; and one whose certificate need not be checked, if it does not know TLS.
    """
    certificates = find_certificates(host, access.cert_dir, environ)
    verify = access.tls_verify and not insecure
    plain_http = access.plain_http
    if plain_http is None:
        if not verify:
            direct = Proxies(environ).proxy(f"https://{host}") is None
            plain_http = direct and not _speaks_tls(host, access.timeout[0])
        else:
            plain_http = is_loopback(host) and certificates == Certificates()
    return Endpoint(host, plain_http, verify, certificates.authorities, certificates.own)


class _WhenChallenged:
    """Makes an authorizer when there is a challenge: its modules take 20 ms to import."""

    def __init__(self, make: Callable[[], Authorizer]) -> None:
        self._authorizer: Authorizer = Fixed()
        self._make = make
        self._lock = threading.Lock()

    def header(self, url: str, scopes: Sequence[str]) -> str | None:
        return self._authorizer.header(url, scopes)

    def challenged(self, url: str, challenges: Sequence[str], scopes: Sequence[str]) -> bool:
        with self._lock:
            if isinstance(self._authorizer, Fixed):
                self._authorizer = self._make()
        return self._authorizer.challenged(url, challenges, scopes)

    def asked(self) -> str:
        return self._authorizer.asked()


def _server(
    realm: Realm, registry: Endpoint, access: Access, environ: Mapping[str, str]
) -> Endpoint:
    """Return how a token server is spoken to; another host does not see our certificate."""
    certificates = find_certificates(realm.host, access.cert_dir, environ)
    here = realm.is_at(registry)
    shown = certificates.own if here or access.cert_dir is None else None
    verify = registry.verify if here else access.tls_verify
    return Endpoint(realm.host, realm.plain_http, verify, certificates.authorities, shown)


def _speaks_tls(host: str, seconds: float) -> bool:
    """Tell whether a host answers to TLS, or at least not to HTTP alone."""
    import ssl  # 8 ms

    parts = urlsplit(f"//{host}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    address = parts.hostname or host, parts.port or PORTS["https"]
    try:
        with (
            socket.create_connection(address, seconds) as connection,
            context.wrap_socket(connection, do_handshake_on_connect=False) as tls,
            limit(tls, seconds),
        ):
            tls.do_handshake()
            return True
    except ssl.SSLError as error:
        return error.reason not in ("WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING", None)
    except ConnectionResetError:
        return False
    except (OSError, UnicodeError):
        return parts.port is not None  # it is not there: the first request will say so
