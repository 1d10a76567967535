"""Bearer tokens, and the servers that give them.

Source: distribution, "Token Authentication Specification" and "Docker Registry v2 OAuth2".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import urlencode

from ...oci.document import Object, parse_object, string
from ...oci.errors import InvalidContent
from .credentials import Credentials, checked_token
from .realm import Realm
from .transport import Transport

CLIENT = "ocistow"  # what OAuth 2 calls client_id
LIFETIME = 60.0  # seconds, for a token without expires_in; as the specification says
MARGIN = 5.0  # seconds before its end in which a token is not used any more
MAX_ANSWER = 256 << 10  # bytes; tokens with many scopes have about 10 KB


@dataclass(frozen=True, slots=True)
class Scopes:
    """What may be done with which resources: `repository:app:pull,push` and more."""

    actions: Mapping[str, frozenset[str]]

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Scopes:
        """Read scopes; several for one resource become one."""
        found: dict[str, frozenset[str]] = {}
        for text in texts:
            resource, _, actions = text.rpartition(":")
            found[resource] = found.get(resource, frozenset()) | set(actions.split(","))
        return cls(found)

    def __iter__(self) -> Iterator[str]:
        """Yield each as text, in order: what is asked for is the same each time."""
        for resource, actions in sorted(self.actions.items()):
            yield f"{resource}:{','.join(sorted(actions))}"

    def covers(self, other: Scopes) -> bool:
        """Tell whether everything of another is in this one."""
        return all(
            actions <= self.actions.get(resource, frozenset())
            for resource, actions in other.actions.items()
        )

    def joined(self, other: Scopes) -> Scopes:
        """Return both together."""
        return Scopes.parse((*self, *other))

    def about(self, other: Scopes) -> Scopes:
        """Return what is about the resources of another."""
        return Scopes({r: a for r, a in self.actions.items() if r in other.actions})


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token.

    Attributes:
        scopes: what it was asked for; it may allow less.
        end: when it is not used any more, by the monotonic clock.
        refresh: another identity token to be used from now on, or nothing.
    """

    value: str = field(repr=False)
    scopes: Scopes
    end: float
    refresh: str = field(default="", repr=False)


def fetch(
    transport: Transport,
    realm: Realm,
    service: str,
    scopes: Scopes,
    credentials: Credentials | None,
    clock: Callable[[], float] = time.monotonic,
) -> Token:
    """Return a token from a server; `transport` leads to it, and has user and password.

    An identity token is sent in a form, by POST; everything else asks by GET. It is asked
    once: whoever needs the token tries again, within its own limits.

    Raises:
        RegistryError: the server refuses.
        RegistryUnavailable: it does not answer.
        InvalidContent: it answers something else.
    """
    begun = clock()
    if credentials is not None and credentials.identity_token:
        form = {
            "grant_type": "refresh_token",
            "refresh_token": credentials.identity_token,
            "client_id": CLIENT,
            "service": service,
            "scope": " ".join(scopes),
        }
        body = urlencode({name: value for name, value in form.items() if value}).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        document, request = _answer(transport, "POST", realm.url, headers, body)
    else:
        query = [("service", service)] if service else []
        query += [("scope", scope) for scope in scopes]
        if credentials is not None and credentials.user:
            query.append(("account", credentials.user))
        separator = "&" if "?" in realm.url else "?"
        url = f"{realm.url}{separator}{urlencode(query)}" if query else realm.url
        document, request = _answer(transport, "GET", url)
    what = f"answer to {request}"
    value = string(document, "token", what) or string(document, "access_token", what)
    lifetime = _lifetime(document)
    return Token(
        checked_token(value, what),
        scopes,
        begun + lifetime - min(MARGIN, lifetime / 4),
        string(document, "refresh_token", what),
    )


def _answer(
    transport: Transport,
    method: str,
    url: str,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> tuple[Object, str]:
    with transport.request(method, url, headers, body) as answer:
        answer.expect(HTTPStatus.OK)
        raw = answer.read_at_most(MAX_ANSWER + 1)
    what = f"answer to {answer.request}"
    if len(raw) > MAX_ANSWER:
        raise InvalidContent(f"{what} has over {MAX_ANSWER} bytes")
    try:
        return parse_object(raw, what), answer.request
    except InvalidContent:  # whose words could be a token
        raise InvalidContent(f"{what} is not a JSON object") from None


def _lifetime(document: Object) -> float:
    seconds = document.get("expires_in")
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        return LIFETIME
    return float(min(max(0, seconds), 1_000_000_000))
