"""The host that answers for a registry, and how it is spoken to."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from ...oci.reference import DEFAULT_REGISTRY, Reference
from ..access import Access
from .endpoint import Endpoint, is_loopback
from .repository import Repository
from .transport import Transport

DOCKER_HUB = "registry-1.docker.io"  # where the registry called index.docker.io answers


@contextmanager
def open_repository(reference: Reference, access: Access) -> Generator[Repository]:
    """Open the repository of a reference; leaving the block closes its connections."""
    host = DOCKER_HUB if reference.registry == DEFAULT_REGISTRY else reference.registry
    plain_http = is_loopback(host) if access.plain_http is None else access.plain_http
    endpoint = Endpoint(host, plain_http, verify=access.tls_verify)
    with Transport(endpoint, access) as transport:
        yield Repository(transport, reference.repository)
