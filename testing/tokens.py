"""A token server on 127.0.0.1, and the guard of a registry that takes its tokens.

Source: distribution, "Token Authentication Specification" and "Docker Registry v2 OAuth2".
"""

from __future__ import annotations

import base64
import json
import logging
import secrets
import subprocess
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, urlsplit

from .exchange import Refused
from .servers import answering

LEEWAY = 60  # seconds that distribution adds to the end of a token
ANYBODY = ""  # the user of a request without credentials

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Signer:
    """A key that a real registry trusts, both in PEM: for JSON Web Tokens by RS256."""

    key: Path
    certificate: Path

    def sign(self, claims: object) -> str:
        """Return a token with the certificate inside, for `rootcertbundle`."""
        lines = self.certificate.read_text().strip().splitlines()
        header = {"typ": "JWT", "alg": "RS256", "x5c": ["".join(lines[1:-1])]}
        text = ".".join(_encoded(json.dumps(part).encode()) for part in (header, claims))
        command = ["openssl", "dgst", "-sha256", "-sign", str(self.key)]
        made = subprocess.run(command, input=text.encode(), check=True, capture_output=True)
        return f"{text}.{_encoded(made.stdout)}"


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """What a client asked for; `user` is nobody unless its credentials were right."""

    method: str
    user: str
    service: str
    scopes: tuple[str, ...]
    headers: Message = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Issued:
    access: frozenset[tuple[str, str]]
    end: float


class TokenServer:
    """Gives tokens to users, alive inside its `with` block. Thread-safe.

    Attributes:
        url: the realm.
        service: what a client has to ask for.
        users: passwords by user.
        identities: users by identity token.
        rights: pairs of user and a scope such as `repository:app:pull,push`; `ANYBODY`
            is also a user. A token allows the part of what was asked for that is granted.
        lifetime: seconds for which a token is good.
        told: seconds that the client is told; None is nothing.
        requests: every request so far, oldest first; may be cleared.
        status: when not 200, what every request is answered with.
    """

    url: str

    def __init__(self, signer: Signer | None = None, service: str = "registry") -> None:
        self.service = service
        self.users: dict[str, str] = {}
        self.identities: dict[str, str] = {}
        self.rights: list[tuple[str, str]] = []
        self.lifetime = 300.0
        self.told: float | None = 300
        self.requests: list[TokenRequest] = []
        self.status: int = HTTPStatus.OK
        self.secrets: list[str] = []
        self._signer = signer
        self._issued: dict[str, _Issued] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            server = stack.enter_context(_Server(self))
            self.url = f"http://127.0.0.1:{server.server_address[1]}/token"
            stack.enter_context(answering(server))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def answer(self, request: TokenRequest, *, known: bool) -> tuple[int, object]:
        """Return status and document; `known` tells whether credentials, if any, were right."""
        self.requests.append(request)
        if self.status != HTTPStatus.OK:
            return self.status, {"details": "no tokens today"}
        if not known:
            return HTTPStatus.UNAUTHORIZED, {"details": "incorrect username or password"}
        if request.service != self.service:
            return HTTPStatus.BAD_REQUEST, {"details": f"unknown service {request.service!r}"}
        asked = _pairs(request.scopes)
        users = {ANYBODY, request.user}
        granted = _pairs(scope for user, scope in self.rights if user in users)
        document: dict[str, object] = {"token": self.issue(request.user, asked & granted)}
        if self.told is not None:
            document["expires_in"] = self.told
        return HTTPStatus.OK, document

    def guard(self, method: str, path: str, headers: Message) -> None:
        """Let a request to a registry pass that has a token for it.

        Raises:
            Refused: it has not; the challenge says what would do.
        """
        needed = _needed(method, path)
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        issued = self._issued.get(token) if scheme == "Bearer" else None
        error = ""
        if issued is None or issued.end <= time.monotonic():
            error = ',error="invalid_token"' if token else ""
        elif _pairs(needed) <= issued.access:
            return
        else:
            error = ',error="insufficient_scope"'
        realm = f'realm="{self.url}",service="{self.service}"'
        challenge = f'Bearer {realm},scope="{" ".join(needed)}"{error}'
        headers_ = {"WWW-Authenticate": challenge}
        raise Refused(HTTPStatus.UNAUTHORIZED, "UNAUTHORIZED", "a token is needed", headers_)

    def expire(self) -> None:
        """End every token now; a registry with a key of its own does not hear of it."""
        self._issued.clear()

    def outlive(self) -> None:
        """Wait until every token has ended."""
        ends = [issued.end for issued in self._issued.values()]
        time.sleep(max([0.0, *(end - time.monotonic() for end in ends)]))

    def issue(self, user: str, access: Iterable[tuple[str, str]]) -> str:
        """Return a new token for pairs of a resource and an action."""
        access = frozenset(access)
        token = secrets.token_urlsafe(200)
        if self._signer is not None:
            now = time.time()
            resources = sorted({resource for resource, _ in access})
            claims = {
                "iss": "tokens",
                "sub": user,
                "aud": self.service,
                "nbf": int(now - LEEWAY),
                "exp": int(now + self.lifetime - LEEWAY),
                "jti": token,
                "access": [
                    {
                        "type": resource.partition(":")[0],
                        "name": resource.partition(":")[2],
                        "actions": sorted(a for r, a in access if r == resource),
                    }
                    for resource in resources
                ],
            }
            token = self._signer.sign(claims)
        self.secrets.append(token)
        self._issued[token] = _Issued(access, time.monotonic() + self.lifetime)
        return token


class _Server(ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self, tokens: TokenServer) -> None:
        self.tokens = tokens
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        user, known = self._user()
        service, scopes = query.get("service", [""])[0], tuple(query.get("scope", []))
        self._answer(TokenRequest("GET", user, service, scopes, self.headers), known=known)

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
        fields = {name: values[0] for name, values in form.items()}
        user = self._tokens.identities.get(fields.get("refresh_token", ""))
        right = user is not None and fields.get("grant_type") == "refresh_token"
        scopes = tuple(fields.get("scope", "").split())
        service = fields.get("service", "")
        self._answer(TokenRequest("POST", user or "", service, scopes, self.headers), known=right)

    def log_message(self, format: str, *args: object) -> None:
        log.debug(format, *args)

    @property
    def _tokens(self) -> TokenServer:
        assert isinstance(self.server, _Server)
        return self.server.tokens

    def _user(self) -> tuple[str, bool]:
        """Return who asks, and whether that is true."""
        value = self.headers.get("Authorization")
        if value is None:
            return ANYBODY, True
        text = base64.b64decode(value.removeprefix("Basic ")).decode()
        user, _, password = text.partition(":")
        return user, self._tokens.users.get(user) == password

    def _answer(self, request: TokenRequest, *, known: bool) -> None:
        status, document = self._tokens.answer(request, known=known)
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _needed(method: str, path: str) -> list[str]:
    """Return the scopes that distribution wants for a request."""
    url = urlsplit(path)
    name = url.path.removeprefix("/v2/")
    for part in ("/blobs/", "/manifests/", "/tags/", "/referrers/"):
        name = name.rpartition(part)[0] or name
    actions = "pull" if method in ("GET", "HEAD") else "pull,push"
    query = parse_qs(url.query)
    sources = query.get("from", []) if "mount" in query else []
    return [f"repository:{name}:{actions}", *(f"repository:{source}:pull" for source in sources)]


def _pairs(scopes: Iterable[str]) -> frozenset[tuple[str, str]]:
    """Return resources and single actions."""
    split = (scope.rpartition(":") for scope in scopes)
    return frozenset((name, action) for name, _, actions in split for action in actions.split(","))


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
