"""How to reach registries and daemons, and with how many requests at once."""

from __future__ import annotations

from dataclasses import dataclass

JOBS = 3  # blobs copied at once; two or three uploads measured best, on two cores
DOCKER_HOST = "unix:///var/run/docker.sock"
TIMEOUT = (10.0, 60.0)  # seconds to connect, seconds for one step of an answer


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach the other side.

    Attributes:
        credentials: user and password for Basic authentication, or None.
        plain_http: whether a registry speaks HTTP; None means if it is on loopback.
        tls_verify: whether a registry's certificate is checked.
        docker_host: `unix:///path` or `tcp://host:port` of the Docker daemon.
        timeout: seconds to connect, and seconds in which each step of an answer has to
            come: its headers, a whole document, 64 KiB of a layer.
    """

    credentials: tuple[str, str] | None = None
    plain_http: bool | None = None
    tls_verify: bool = True
    docker_host: str = DOCKER_HOST
    timeout: tuple[float, float] = TIMEOUT
