"""Credentials for a registry, and the documents of docker, podman and lifecycle that hold them.

Sources: docker's `config.json` and the older `.dockercfg`, containers-auth.json(5), and
CNB_REGISTRY_AUTH of the buildpacks' platform specification.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ...oci.document import Object, as_object, parse_object, string, strings
from ...oci.errors import InvalidContent
from ...oci.reference import DEFAULT_REGISTRY
from ...oci.wording import quoted

ANONYMOUS = "Anonymous"  # in the place of a header: there are no credentials anywhere
HUB_KEY = f"https://{DEFAULT_REGISTRY}/v1/"  # what files and helpers call Docker Hub

_HUB_ALIASES = {DEFAULT_REGISTRY, "docker.io", "registry-1.docker.io"}
_VERSIONS = {"v1", "v2"}  # of the API; no namespaces of a registry


@dataclass(frozen=True, slots=True)
class Credentials:
    """What lets one in: a user with a password, or a token. The repr tells no secret.

    Attributes:
        origin: where they come from, as a message may say.
        identity_token: a refresh token of OAuth 2; a token server gives others for it.
        registry_token: a bearer token for the registry itself.
    """

    origin: str
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    @property
    def header(self) -> str:
        """What `of_header` reads; empty when there is nothing."""
        if self.registry_token:
            return f"Bearer {self.registry_token}"
        return f"X-Identity {self.identity_token}" if self.identity_token else self.basic

    @property
    def basic(self) -> str:
        """The value of an `Authorization` header (RFC 7617); empty when there is no user."""
        if not self.user:
            return ""
        return f"Basic {base64.b64encode(f'{self.user}:{self.password}'.encode()).decode()}"


@dataclass(frozen=True, slots=True)
class AuthFile:
    """What one file says: credentials, and which credential helpers have more.

    Attributes:
        name: how messages call it.
        helpers: names of credential helpers, by registry.
        store: the name of the credential helper for every other registry, or nothing.
    """

    name: str
    helpers: Mapping[str, str]
    store: str
    entries: Mapping[str, object] = field(repr=False)

    @classmethod
    def parse(cls, raw: bytes, name: str, *, legacy: bool = False) -> AuthFile:
        """Read a `config.json` or `auth.json`, or a `.dockercfg` when `legacy`.

        Raises:
            InvalidContent: it is malformed; the message has nothing of its content.
        """
        document = _secret_object(raw, name)
        if legacy:
            document = {"auths": document}
        auths = document.get("auths")
        entries: dict[str, object] = {}
        for key, entry in as_object({} if auths is None else auths, f"auths of {name}").items():
            if entry:  # docker leaves an empty one for what its credential store has
                entries.setdefault(_normalized(key), entry)
        helpers = {_normalized(k): v for k, v in strings(document, "credHelpers", name).items()}
        return cls(name, helpers, string(document, "credsStore", name), entries)

    def find(self, registry: str, repository: str) -> Credentials | None:
        """Return what is written for the longest beginning of `registry/repository`.

        Raises:
            InvalidContent: that is malformed.
        """
        for key in _namespaces(registry, repository):
            if key in self.entries:
                what = f"{quoted(key)} in {self.name}"
                found = _credentials(as_object(self.entries[key], what), self.name, what)
                if found is not None:
                    return found
        return None

    def helper(self, registry: str) -> str:
        """Return the name of the credential helper for just this registry, or nothing."""
        return self.helpers.get(_normalized(registry), "")


def parse_headers(raw: bytes, name: str) -> Mapping[str, str]:
    """Read CNB_REGISTRY_AUTH: header values by registry.

    Raises:
        InvalidContent: it is malformed; the message has nothing of its content.
    """
    document = _secret_object(raw, name)
    return {_normalized(registry): string(document, registry, name) for registry in document}


def of_header(value: str, origin: str) -> Credentials:
    """Read `Basic …`, `Bearer …` or `X-Identity …`.

    Raises:
        InvalidContent: it is none of these.
    """
    scheme, _, secret = value.strip().partition(" ")
    match scheme.lower():
        case "basic":
            user, password = _pair(secret, origin)
            return Credentials(origin, user, password)
        case "bearer":
            return Credentials(origin, registry_token=checked_token(secret.strip(), origin))
        case "x-identity":
            return Credentials(origin, identity_token=checked_token(secret.strip(), origin))
        case _:
            raise InvalidContent(f"{origin}: expected Basic, Bearer or X-Identity")


def header_for(headers: Mapping[str, str], registry: str, repository: str) -> str:
    """Return what `parse_headers` read for the longest beginning of a repository, or nothing.

    The specification knows registries only.
    """
    found = (headers.get(key, "") for key in _namespaces(registry, repository))
    return next(filter(None, found), "")


def helper_key(registry: str) -> str:
    """Return what a credential helper calls a registry."""
    return HUB_KEY if registry in _HUB_ALIASES else registry


def checked_token(text: str, what: str) -> str:
    """Return a token that may stand in a header: visible ASCII (RFC 6750, 2.1).

    Raises:
        InvalidContent: it is not; the message does not have it.
    """
    if not text or not all("!" <= character <= "~" for character in text):
        raise InvalidContent(f"{what}: not a token")
    return text


def _credentials(entry: Object, origin: str, what: str) -> Credentials | None:
    user, password = (string(entry, member, what) for member in ("username", "password"))
    if auth := string(entry, "auth", what).strip():
        user, password = _pair(auth, what)
    tokens = [string(entry, member, what) for member in ("identitytoken", "registrytoken")]
    identity, registry = (checked_token(token, what) if token else "" for token in tokens)
    if not (user or identity or registry):
        return None
    return Credentials(origin, user, password, identity, registry)


def _pair(text: str, what: str) -> tuple[str, str]:
    """Return user and password of what RFC 7617 makes of them."""
    try:
        user, colon, password = (
            base64.b64decode(text.strip(), validate=True).decode().partition(":")
        )
    except (binascii.Error, ValueError):
        colon = user = password = ""
    if not colon:
        raise InvalidContent(f"{what}: not USER:PASSWORD in base64")
    return user, password.rstrip("\0")  # as docker reads what its first versions wrote


def _secret_object(raw: bytes, name: str) -> Object:
    try:
        return parse_object(raw, name)
    except InvalidContent:  # whose words could come from the content
        raise InvalidContent(f"{name} is not a JSON object") from None


def _normalized(key: str) -> str:
    """Return `host[:port][/namespace]`, under the one name that a registry has here."""
    rest = key.rpartition("://")[2]
    host, _, path = rest.partition("/")
    path = path.strip("/")
    host = DEFAULT_REGISTRY if host.lower() in _HUB_ALIASES else host.lower()
    return host if not path or path in _VERSIONS else f"{host}/{path}"


def _namespaces(registry: str, repository: str) -> Iterator[str]:
    """Yield `registry/repository` and each beginning of it, the longest first."""
    key = f"{_normalized(registry)}/{repository}"
    while key:
        yield key
        key = key.rpartition("/")[0]
