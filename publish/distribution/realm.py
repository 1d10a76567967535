"""The token server that a registry names, and what it may be told.

The challenge of a registry is the word of whoever answered: it must not be able to send
credentials, or a request, just anywhere.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from ...oci.errors import InvalidContent
from ...oci.wording import plain
from .endpoint import Endpoint, is_loopback
from .urls import PORTS


@dataclass(frozen=True, slots=True)
class Realm:
    """The address of a token server.

    Attributes:
        url: absolute, without user and fragment.
        host: `host` or `host:port`.
        name: the host without its port, in lower case.
        plain_http: whether the URL is one of HTTP without TLS.
    """

    url: str
    host: str
    name: str
    plain_http: bool

    @classmethod
    def parse(cls, text: str) -> Realm:
        """Read the realm of a bearer challenge.

        Raises:
            InvalidContent: it is no absolute HTTP URL, or has a user.
        """
        try:
            parts = urlsplit(text)
            if parts.scheme in PORTS and parts.hostname and parts.port != 0:
                safe = text.isascii() and text.isprintable() and " " not in text
                if safe and "@" not in parts.netloc:
                    url = parts._replace(fragment="").geturl()
                    return cls(url, parts.netloc, parts.hostname, parts.scheme == "http")
        except ValueError:
            pass
        raise InvalidContent(f"not the URL of a token server: {plain(text)!r}")

    def may_be_asked(self, registry: Endpoint, known: Collection[str]) -> bool:
        """Tell whether a token may be fetched here, even without credentials.

        Never by HTTP for a registry that speaks TLS: the answer is a key to it, and what
        trusts whoever can reach it, such as the service with the keys of a cloud's
        machines, speaks HTTP. A registry without TLS may name only itself so.
        """
        if not self.plain_http:
            return True
        if not (registry.plain_http or is_loopback(self.host)):
            return False
        return self._is_in(known) or self.is_at(registry)

    def may_have_credentials(self, registry: Endpoint, known: Collection[str]) -> bool:
        """Tell whether the registry's credentials may be sent here.

        That is so on the registry's own host, and on one that the user made `known`. A
        registry that proved by TLS who it is is also believed about hosts of its own
        domain, such as `auth.docker.io` for `registry-1.docker.io`.
        """
        if not self.may_be_asked(registry, known):
            return False
        if self._is_in(known) or self.is_at(registry):
            return True
        proven = registry.verify and not registry.plain_http
        return proven and not self.plain_http and _in_domain(self.name, _name(registry.host))

    def _is_in(self, hosts: Collection[str]) -> bool:
        return self.host in hosts or self.name in hosts

    def is_at(self, registry: Endpoint) -> bool:
        """Tell whether it is the registry's host, on whatever port."""
        here = is_loopback(self.host) and is_loopback(registry.host)
        return here or self.name == _name(registry.host)


def _in_domain(name: str, registry: str) -> bool:
    """Tell whether a host is below the registry's name, or below what that is below of."""
    domains = [registry, registry.partition(".")[2]]
    return any(
        "." in domain and f".{name}".endswith(f".{domain}")
        for domain in domains
        if not domain.replace(".", "").isdigit()
    )


def _name(host: str) -> str:
    return (urlsplit(f"//{host}").hostname or host).lower()
