"""How to reach registries and daemons, and with how many requests at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

JOBS = 3  # blobs copied at once; two or three uploads measured best, on two cores
TIMEOUT = (10.0, 60.0)  # seconds to connect, seconds for one step of an answer


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach the other side; what is not given here comes from environment and files.

    Attributes:
        credentials: user and password for a registry, or None to look for them.
        registry_token: a bearer token to be sent to a registry as it is.
        authfile: the only file in which to look for credentials.
        token_hosts: `host` or `host:port` of token servers that may see the credentials,
            besides those of the registry's own host and domain.
        plain_http: whether a registry speaks HTTP; None means if it is on loopback or
            known to be insecure.
        tls_verify: whether a registry's certificate is checked.
        cert_dir: a directory of `*.crt`, `*.cert` and `*.key` instead of the usual ones.
        docker_host: `unix:///path` or `tcp://host:port` of the Docker daemon; None means
            what DOCKER_HOST, DOCKER_CONTEXT or docker's own configuration say.
        containerd: the socket of containerd; None means CONTAINERD_ADDRESS, or its default.
        namespace: containerd's namespace.
        timeout: seconds to connect, and seconds in which each step of an answer has to
            come: its headers, a whole document, 64 KiB of a layer.
    """

    credentials: tuple[str, str] | None = field(default=None, repr=False)
    registry_token: str | None = field(default=None, repr=False)
    authfile: Path | None = None
    token_hosts: frozenset[str] = frozenset()
    plain_http: bool | None = None
    tls_verify: bool = True
    cert_dir: Path | None = None
    docker_host: str | None = None
    containerd: str | None = None
    namespace: str = "default"
    timeout: tuple[float, float] = TIMEOUT


def home_of(environ: Mapping[str, str]) -> Path | None:
    """Return the user's directory, below which other tools keep such settings.

    None for one that this process may not enter: HOME still names root's after a phase has
    become another user.
    """
    home = Path(environ.get("HOME") or os.path.expanduser("~"))
    return home if os.access(home, os.X_OK, effective_ids=True) else None
