"""How a registry is shown who asks: its challenges, answered with credentials or tokens.

Source: RFC 9110, 11; RFC 6750; distribution, "Token Authentication Specification".
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from ...oci.errors import RegistryError
from .challenge import BASIC, BEARER, Challenge, parse_challenges
from .credentials import Credentials
from .endpoint import Endpoint
from .realm import Realm
from .tokens import Scopes, Token, fetch
from .transport import Fixed, Transport
from .urls import redacted, same_origin

Finder = Callable[[], Credentials | None]
Opener = Callable[[Realm, Fixed], Transport]

_DENIED = {401, 403}
_INSUFFICIENT = "insufficient_scope"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Basic:
    """The password goes to the registry with each request."""


@dataclass(frozen=True, slots=True)
class _Given:
    """So does a token that the user has."""


@dataclass(frozen=True, slots=True)
class _Bearer:
    """So does a token that a server gives; with `trusted` it may see the credentials."""

    realm: Realm
    service: str
    trusted: bool


class Authorization:
    """Answers the challenges of one registry for one repository. Thread-safe.

    Nothing is looked for and nothing sent before the registry asks. From then on each
    request carries what was asked for: for `Basic` the password, for `Bearer` a token that
    covers the scopes of the request, and is kept while it lasts. They go to the origin
    of the registry only, and to its realm as `Realm` allows.
    """

    def __init__(
        self,
        registry: Endpoint,
        scopes: Iterable[str],
        find: Finder,
        open_realm: Opener,
        known: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Answer for `registry`, where every request needs `scopes`.

        `find` looks for credentials, and may do so again when they were refused;
        `open_realm` returns a transport to a token server, authorized like this;
        `known` are hosts that may see the credentials.
        """
        self._registry = registry
        self._scopes = Scopes.parse(scopes)
        self._find = find
        self._open = open_realm
        self._known = known
        self._clock = clock
        self._lock = threading.Lock()
        self._sent = threading.local()
        self._way: _Basic | _Given | _Bearer | None = None
        self._credentials: Credentials | None = None
        self._asked = False
        self._learned = Scopes.parse(())
        self._tokens: list[Token] = []

    def header(self, url: str, scopes: Sequence[str]) -> str | None:
        """Return the Authorization to send, which may need a new token; None before a challenge.

        Raises:
            RegistryError: the token server refuses.
            RegistryUnavailable: it does not answer.
            InvalidContent: it answers something else.
        """
        if not same_origin(url, self._registry.origin):
            return None
        with self._lock:
            wanted = self._wanted(scopes)
            value = self._kept(wanted)
            if value is None and isinstance(self._way, _Bearer):
                value = self._fetched(self._way, wanted)
        self._sent.value = value
        return value

    def challenged(self, url: str, challenges: Sequence[str], scopes: Sequence[str]) -> bool:
        """Take the challenges of a 401; tell whether `header` may be another now.

        Raises:
            InvalidContent: they are malformed.
            RegistryError: they name a realm that must not be asked, or a credential
                helper refuses.
        """
        if not same_origin(url, self._registry.origin):
            return False
        parsed = parse_challenges(challenges)
        sent: str | None = getattr(self._sent, "value", None)
        with self._lock:
            wanted = self._wanted(scopes)
            kept = self._kept(wanted)
            if kept is not None and kept != sent:
                return True  # another thread was told the same before
            self._tokens = [token for token in self._tokens if f"Bearer {token.value}" != sent]
            learned = self._learn(parsed, wanted)
            if isinstance(self._way, _Bearer) and sent is not None:
                return learned or not _is_insufficient(parsed)
            found = self._find()
            if sent is not None and found == self._credentials:
                return False
            self._asked, self._credentials = True, found
            self._way = self._choose(parsed)
            return self._way is not None

    def asked(self) -> str:
        """Return with which credentials the registry was asked, as the end of a message."""
        with self._lock:
            return self._words()

    def _words(self) -> str:
        if not self._asked:
            return ""
        if self._credentials is None:
            return "asked anonymously"
        words = f"the credentials of {self._credentials.origin}"
        match self._way:
            case None:
                return f"{words} are of no use for it"
            case _Bearer(realm, _, False):
                return f"asked anonymously: {words} are not for {realm.host}"
            case _:
                return f"asked with {words}"

    def _wanted(self, scopes: Iterable[str]) -> Scopes:
        wanted = self._scopes.joined(Scopes.parse(scopes))
        return wanted.joined(self._learned.about(wanted))

    def _learn(self, challenges: Iterable[Challenge], wanted: Scopes) -> bool:
        """Note which actions the registry wants for the same resources; tell whether it wants more.

        It could name others, to have a token for them.
        """
        scopes = [s for c in challenges for s in c.parameters.get("scope", "").split()]
        learned = Scopes.parse(scopes).about(wanted)
        if wanted.covers(learned):
            return False
        self._learned = self._learned.joined(learned)
        return True

    def _kept(self, wanted: Scopes) -> str | None:
        """Return the header that needs no new token."""
        match self._way, self._credentials:
            case _Basic(), Credentials() as credentials:
                return credentials.basic
            case _Given(), Credentials() as credentials:
                return f"Bearer {credentials.registry_token}"
            case _Bearer(), _:
                now = self._clock()
                self._tokens = [token for token in self._tokens if token.end > now]
                tokens = (token for token in self._tokens if token.scopes.covers(wanted))
                return next((f"Bearer {token.value}" for token in tokens), None)
            case _:
                return None

    def _fetched(self, way: _Bearer, wanted: Scopes) -> str:
        """Return the header with a new token."""
        try:
            token = self._fetch(way, wanted)
        except RegistryError as error:
            found = self._find() if error.status in _DENIED else self._credentials
            if found == self._credentials:
                raise
            self._credentials = found  # somebody logged in meanwhile
            token = self._fetch(way, wanted)
        if token.refresh and self._credentials is not None:
            self._credentials = replace(self._credentials, identity_token=token.refresh)
        self._tokens.append(token)
        return f"Bearer {token.value}"

    def _fetch(self, way: _Bearer, wanted: Scopes) -> Token:
        credentials = self._credentials if way.trusted else None
        basic = credentials.basic if credentials and not credentials.identity_token else None
        with self._open(way.realm, Fixed(basic or None, self._words())) as transport:
            return fetch(transport, way.realm, way.service, wanted, credentials, self._clock)

    def _choose(self, challenges: Iterable[Challenge]) -> _Basic | _Given | _Bearer | None:
        """Return the best way in: one that uses the credentials, a token rather than these."""
        credentials = self._credentials
        anonymous: _Bearer | None = None
        basic: _Basic | None = None
        refused: Realm | None = None
        for challenge in challenges:
            if challenge.scheme == BASIC and credentials is not None and credentials.user:
                basic = _Basic()
            if challenge.scheme != BEARER:
                continue
            if credentials is not None and credentials.registry_token:
                return _Given()
            realm = Realm.parse(challenge.parameters.get("realm", ""))
            if not realm.may_be_asked(self._registry, self._known):
                refused = realm
                continue
            trusted = realm.may_have_credentials(self._registry, self._known)
            way = _Bearer(realm, challenge.parameters.get("service", ""), trusted)
            if trusted or credentials is None:
                return way
            anonymous = way
        if basic is None and anonymous is None and refused is not None:
            words = f"it wants a token to be fetched by HTTP from another host, {refused.host}"
            raise RegistryError(self._registry.origin, 0, (), words)
        if basic is None and anonymous is not None and credentials is not None:
            log.warning(
                "%s: the credentials of %s are not sent to %s, another host",
                self._registry.origin,
                credentials.origin,
                redacted(anonymous.realm.url),
            )
        return basic or anonymous


def _is_insufficient(challenges: Iterable[Challenge]) -> bool:
    """Tell whether a token was good, and another one would not allow more (RFC 6750, 3.1)."""
    return any(challenge.parameters.get("error") == _INSUFFICIENT for challenge in challenges)
