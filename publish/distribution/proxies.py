"""Which proxy the environment means for a URL: as curl and Go read the same variables."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from ...oci.errors import InvalidContent
from .endpoint import is_loopback
from .urls import PORTS


class Proxies:
    """The proxies of an environment; `NO_PROXY` and this machine itself are reached directly.

    Variables are looked up in capitals, then in small letters, as Go does; in a CGI
    process, `HTTP_PROXY` is a header of a client and does not count.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        cgi = "REQUEST_METHOD" in environ

        def value(name: str) -> str:
            found = "" if cgi and name == "HTTP_PROXY" else environ.get(name)
            return (found or environ.get(name.lower()) or "").strip()

        general = value("ALL_PROXY")
        self._proxies = {
            "http": value("HTTP_PROXY") or general,
            "https": value("HTTPS_PROXY") or general,
        }
        self._direct = [entry.strip().lower() for entry in value("NO_PROXY").split(",")]

    def proxy(self, url: str) -> str | None:
        """Return the URL of the proxy for an HTTP URL, or None.

        Raises:
            InvalidContent: it is no HTTP proxy.
        """
        parts = urlsplit(url)
        host = parts.hostname or ""
        proxy = self._proxies[parts.scheme]
        if not proxy or is_loopback(f"[{host}]" if ":" in host else host):
            return None
        port = parts.port or PORTS[parts.scheme]
        if any(_names(entry, host, port) for entry in self._direct if entry):
            return None
        return _checked(proxy)


def _checked(proxy: str) -> str:
    whole = proxy if "://" in proxy else f"http://{proxy}"
    try:
        parts = urlsplit(whole)
        if parts.scheme in PORTS and parts.hostname and parts.port != 0:
            return whole
    except ValueError:
        pass
    raise InvalidContent(f"not an HTTP proxy: {whole.rpartition('@')[2]!r}")


def _names(entry: str, host: str, port: int) -> bool:
    """Tell whether an entry of NO_PROXY means a host.

    It is `*`, a domain with all below it, `.domain` for only those, an address, or a
    network such as `10.0.0.0/8`; the first four may have a port.
    """
    if entry == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except (ValueError, TypeError):
        pass
    name, colon, stated = entry.rpartition(":")
    if not colon or not stated.isdigit():
        name = entry
    elif int(stated) != port:
        return False
    name, host = name.strip("[]").removeprefix("*"), host.rstrip(".")
    return host.endswith(name) if name.startswith(".") else f".{host}".endswith(f".{name}")
