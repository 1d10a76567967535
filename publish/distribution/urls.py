"""URLs as a registry gives them and as a message may show them."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

from ...oci.errors import InvalidContent
from ...oci.wording import plain

PORTS = {"http": 80, "https": 443}


def joined(base: str, url: str) -> str:
    """Return the URL that one means where `base` is.

    Raises:
        InvalidContent: it is no HTTP URL.
    """
    try:
        whole = urljoin(base, url)
        parts = urlsplit(whole)
        if parts.scheme in PORTS and parts.hostname and parts.port != 0:
            return whole
    except ValueError:
        pass
    raise InvalidContent(f"not an HTTP URL: {plain(url)!r}")


def redacted(url: str) -> str:
    """Return a URL as it may be shown: no user, no password, no query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def same_origin(one: str, other: str) -> bool:
    """Tell whether two URLs have the same scheme, host and port; RFC 6454."""
    return _origin(one) == _origin(other)


def _origin(url: str) -> tuple[str, str | None, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or PORTS[parts.scheme]
