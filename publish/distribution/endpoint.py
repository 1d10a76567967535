"""Where a registry answers, and how it is spoken to."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One registry: an address, and what makes a connection to it trusted.

    Attributes:
        host: `host` or `host:port`.
        plain_http: whether it speaks HTTP without TLS.
        verify: whether its certificate is checked.
        authorities: PEM files of certificates trusted besides those of the system.
        certificate: PEM files of our own certificate and its key, shown to this host only.
    """

    host: str
    plain_http: bool = False
    verify: bool = True
    authorities: tuple[Path, ...] = ()
    certificate: tuple[Path, Path] | None = None

    @property
    def origin(self) -> str:
        """The beginning of its URLs, without a slash at the end."""
        return f"{'http' if self.plain_http else 'https'}://{self.host}"


def is_loopback(host: str) -> bool:
    """Tell whether `host[:port]` can only be this machine."""
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return name == "localhost"
