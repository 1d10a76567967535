"""Tokens for an in-process registry: what is asked for, what is sent where, what is told."""

import base64
import itertools
import json
import logging
import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from email.message import Message
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocistow.oci.descriptor import Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.errors import InvalidContent, OcistowError, RegistryError, RegistryUnavailable
from ocistow.oci.reference import Reference
from ocistow.publish.access import Access
from ocistow.publish.copy import copy
from ocistow.publish.distribution.answer import Answer
from ocistow.publish.distribution.authorization import Authorization
from ocistow.publish.distribution.credentials import Credentials
from ocistow.publish.distribution.endpoint import Endpoint
from ocistow.publish.distribution.exchange import Body
from ocistow.publish.distribution.hosts import open_repository
from ocistow.publish.distribution.realm import Realm
from ocistow.publish.distribution.repository import Repository
from ocistow.publish.distribution.retries import TRIES
from ocistow.publish.distribution.tokens import Scopes
from ocistow.publish.distribution.transport import Fixed, Transport
from ocistow.publish.layout import LayoutSource, StoreSink
from ocistow.publish.transports import open_sink, open_source
from ocistow.store.store import Store
from ocistow.testing.faults import Fault, Status
from ocistow.testing.images import GeneratedImage, image_layout
from ocistow.testing.registry import Registry
from ocistow.testing.tokens import ANYBODY, TokenServer

NAME = Reference.parse("example.org/app:1")
SECRET = "hunter2-do-not-tell"
IDENTITY = "identity-do-not-tell"
ME = Access(("me", SECRET))


@pytest.fixture
def tokens() -> Iterator[TokenServer]:
    with TokenServer() as tokens:
        tokens.users["me"] = SECRET
        tokens.identities[IDENTITY] = "me"
        tokens.rights = [("me", "repository:app:pull,push")]
        yield tokens


@pytest.fixture
def registry(tokens: TokenServer) -> Iterator[Registry]:
    with Registry() as registry:
        registry.guard = tokens.guard
        yield registry


@pytest.fixture
def image(tmp_path: Path) -> GeneratedImage:
    return image_layout(tmp_path / "layout", layers=3)


@pytest.fixture(autouse=True)
def nothing_secret_is_logged(
    caplog: pytest.LogCaptureFixture, tokens: TokenServer
) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    secrets = [SECRET, IDENTITY, base64.b64encode(f"me:{SECRET}".encode()).decode()]
    for secret in (*secrets, *tokens.secrets):
        assert secret not in caplog.text


def push(registry: Registry, image: GeneratedImage, access: Access, name: str = "app:1") -> None:
    with open_sink(f"docker://{registry.host}/{name}", access=access) as sink:
        copy(LayoutSource(image.path), sink)


def refusal(registry: Registry, image: GeneratedImage, access: Access) -> OcistowError:
    """Return why a push is refused; nothing of the error tells a secret."""
    with pytest.raises(OcistowError) as raised:
        push(registry, image, access)
    text = "".join(traceback.format_exception(raised.value, chain=True))
    assert SECRET not in text
    assert IDENTITY not in text
    return raised.value


def test_one_token_does_for_a_push(
    registry: Registry, tokens: TokenServer, image: GeneratedImage
) -> None:
    push(registry, image, ME)
    assert registry.repositories.tags("app") == {"1": image.manifest}
    [asked] = tokens.requests
    assert (asked.method, asked.user, asked.service) == ("GET", "me", "registry")
    assert asked.scopes == ("repository:app:pull,push",)
    assert [r.status for r in registry.requests].count(401) == 1
    basic = [r for r in registry.requests if "Basic" in r.headers.get("Authorization", "")]
    assert basic == []


def test_a_pull_asks_for_no_more_than_that(
    registry: Registry, tokens: TokenServer, image: GeneratedImage, store: Store
) -> None:
    registry.repositories.load(image.path, "app")
    tokens.rights = [(ANYBODY, "repository:app:pull")]
    with open_source(f"docker://{registry.host}/app", store) as source:
        assert copy(source, StoreSink(store, NAME)).root.digest == image.manifest
    assert [r.scopes for r in tokens.requests] == [("repository:app:pull",)]
    assert "Authorization" not in tokens.requests[0].headers


def test_an_identity_token_is_sent_in_a_form(
    registry: Registry,
    tokens: TokenServer,
    image: GeneratedImage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CNB_REGISTRY_AUTH", json.dumps({registry.host: f"X-Identity {IDENTITY}"}))
    push(registry, image, Access())
    assert [(r.method, r.user) for r in tokens.requests] == [("POST", "me")]
    assert "Authorization" not in tokens.requests[0].headers


def test_a_token_of_the_user_needs_no_server(
    registry: Registry, tokens: TokenServer, image: GeneratedImage
) -> None:
    token = tokens.issue("me", [("repository:app", "pull"), ("repository:app", "push")])
    push(registry, image, Access(registry_token=token))
    assert registry.repositories.tags("app") == {"1": image.manifest}
    assert tokens.requests == []
    error = refusal(registry, image, Access(registry_token="x"))
    assert str(error).endswith("asked with the credentials of the command line (HTTP 401)")
    assert tokens.requests == []


def test_a_token_that_ends_in_the_middle_is_replaced(
    registry: Registry, tokens: TokenServer, tmp_path: Path
) -> None:
    """The server tells nothing about the end: the registry does, by 401."""
    image = image_layout(tmp_path / "many", layers=12)
    numbers = itertools.count(1)

    def guard(method: str, path: str, headers: Message) -> None:
        tokens.guard(method, path, headers)
        if next(numbers) % 20 == 0:
            tokens.expire()

    registry.guard, tokens.told = guard, None
    push(registry, image, ME)
    assert registry.repositories.tags("app") == {"1": image.manifest}
    assert len(tokens.requests) > 1


def test_a_token_is_replaced_before_its_end(
    registry: Registry, tokens: TokenServer, tmp_path: Path
) -> None:
    image = image_layout(tmp_path / "many", layers=8)
    tokens.told = 0.01  # it is good for longer, but who could know
    push(registry, image, ME)
    assert [r.status for r in registry.requests].count(401) == 1
    assert len(tokens.requests) > 2


def test_every_token_may_be_revoked_at_any_time(
    registry: Registry, tokens: TokenServer, image: GeneratedImage
) -> None:
    registry.repositories.load(image.path, "app")
    with open_repository(Reference.parse(f"{registry.host}/app"), ME) as repository:
        for _ in range(3):
            assert repository.has_manifest(image.manifest)
            tokens.expire()
    assert len(tokens.requests) == 3


def test_many_threads_need_one_token(
    registry: Registry, tokens: TokenServer, image: GeneratedImage
) -> None:
    registry.repositories.load(image.path, "app")
    with (
        open_repository(Reference.parse(f"{registry.host}/app"), ME) as repository,
        ThreadPoolExecutor(8) as pool,
    ):
        assert all(pool.map(repository.has_manifest, [image.manifest] * 32))
    assert len(tokens.requests) == 1


def test_what_is_not_granted_is_told_with_the_credentials_used(
    registry: Registry, tokens: TokenServer, image: GeneratedImage
) -> None:
    tokens.rights = [("me", "repository:app:pull")]
    error = refusal(registry, image, ME)
    assert str(error).endswith(
        "UNAUTHORIZED: unauthorized, asked with the credentials of the command line (HTTP 401)"
    )
    asked = len(tokens.requests)
    assert asked <= 4  # and none of them because the scope is insufficient
    assert "asked anonymously (HTTP 401)" in str(refusal(registry, image, Access()))


def test_a_wrong_password_is_told_by_the_token_server(
    registry: Registry,
    tokens: TokenServer,
    image: GeneratedImage,
    tmp_path: Path,
) -> None:
    authfile = tmp_path / "auth.json"
    entry = {"username": "me", "password": SECRET[::-1]}
    authfile.write_text(json.dumps({"auths": {registry.host: entry}}))
    error = refusal(registry, image, Access(authfile=authfile))
    assert isinstance(error, RegistryError)
    assert str(error) == (
        f"GET {tokens.url}: incorrect username or password, "
        f"asked with the credentials of {authfile} (HTTP 401)"
    )
    assert len(tokens.requests) == 1


def test_a_login_meanwhile_counts(
    registry: Registry, tokens: TokenServer, image: GeneratedImage, tmp_path: Path
) -> None:
    registry.repositories.load(image.path, "app")
    authfile = tmp_path / "auth.json"

    def login(password: str) -> None:
        entry = {"username": "me", "password": password}
        authfile.write_text(json.dumps({"auths": {registry.host: entry}}))

    login(SECRET)
    access = Access(authfile=authfile)
    with open_repository(Reference.parse(f"{registry.host}/app"), access) as repository:
        assert repository.has_manifest(image.manifest)
        tokens.expire()
        tokens.users["me"] = "another"
        login("another")
        assert repository.has_manifest(image.manifest)


@pytest.mark.parametrize("status", [500, 503])
def test_a_token_server_that_is_ill_makes_the_registry_unavailable(
    registry: Registry,
    tokens: TokenServer,
    image: GeneratedImage,
    status: int,
) -> None:
    tokens.status = status
    authorization = authorization_of(registry)
    with (
        Transport(endpoint(registry), ME, lambda _: None, authorization=authorization) as transport,
        pytest.raises(RegistryUnavailable, match="no tokens today"),
    ):
        Repository(transport, "app").manifest("1")
    assert len(tokens.requests) == TRIES  # and not as often for each of these


def test_a_mount_asks_for_both_repositories(registry: Registry, tokens: TokenServer) -> None:
    tokens.rights.append(("me", "repository:other:pull"))
    authorization = authorization_of(registry)
    with Transport(endpoint(registry), ME, authorization=authorization) as transport:
        for _ in range(2):
            url = f"/v2/app/blobs/uploads/?mount=sha256:{'0' * 64}&from=other"
            with transport.request(
                "POST", url, body=b"", scopes=["repository:other:pull"]
            ) as answer:
                answer.expect(202)
        with transport.request("GET", "/v2/app/tags/list") as answer:
            answer.expect(404)  # for this the token does, too
    both = ("repository:app:pull,push", "repository:other:pull")
    assert [request.scopes for request in tokens.requests] == [both]


# What a registry may not have us do.


def endpoint(registry: Registry) -> Endpoint:
    return Endpoint(registry.host, plain_http=True)


def authorization_of(registry: Registry) -> Authorization:
    def open_realm(realm: Realm, authorization: Fixed) -> Transport:
        server = Endpoint(realm.host, realm.plain_http)
        return Transport(server, Access(), lambda _: None, authorization=authorization)

    return Authorization(
        endpoint(registry),
        ["repository:app:pull,push"],
        lambda: Credentials("a test", "me", SECRET),
        open_realm,
    )


REGISTRY = Endpoint("registry.example.org:5000")


@pytest.mark.parametrize(
    ("registry", "url", "asked", "trusted"),
    [
        # the same host, whatever the port
        (REGISTRY, "https://registry.example.org/token", True, True),
        (REGISTRY, "https://registry.example.org:8443/token", True, True),
        (REGISTRY, "http://registry.example.org:5000/token", False, False),
        # its domain, which TLS makes believable
        (REGISTRY, "https://auth.example.org/token", True, True),
        (REGISTRY, "https://example.org/jwt/auth", True, True),
        (REGISTRY, "https://a.registry.example.org/token", True, True),
        (REGISTRY, "https://evilexample.org/token", True, False),
        (REGISTRY, "https://example.org.evil.net/token", True, False),
        (Endpoint("example.org"), "https://auth.example.org/", True, True),
        (Endpoint("example.org"), "https://other.org/", True, False),
        (Endpoint("registry-1.docker.io"), "https://auth.docker.io/token", True, True),
        (Endpoint("registry-1.docker.io"), "https://auth.docker.io.evil.net/", True, False),
        (Endpoint("r.example.org", verify=False), "https://auth.example.org/", True, False),
        (Endpoint("r.example.org", plain_http=True), "https://auth.example.org/", True, False),
        (Endpoint("10.0.0.1"), "https://11.0.0.1/", True, False),
        (Endpoint("registry"), "https://auth/", True, False),
        # plain HTTP
        (Endpoint("r.example.org", plain_http=True), "http://r.example.org:81/", True, True),
        (Endpoint("r.example.org", plain_http=True), "http://169.254.169.254/", False, False),
        (Endpoint("r.example.org", plain_http=True), "http://auth.example.org/", False, False),
        (REGISTRY, "http://127.0.0.1:1/", False, False),
        (Endpoint("localhost:5000", plain_http=True), "http://127.0.0.1:1/", True, True),
        (Endpoint("localhost:5000"), "http://localhost:1/", True, True),
        (Endpoint("localhost:5000", plain_http=True), "http://auth.example.org/", False, False),
        (Endpoint("localhost:5000", plain_http=True), "https://auth.example.org/", True, False),
        # what the user says
        (REGISTRY, "https://known.net/", True, True),
        (REGISTRY, "https://known.net:8443/", True, True),
        (REGISTRY, "http://known.net/", False, False),
        (Endpoint("r.example.org", plain_http=True), "http://known.net/", True, True),
        (Endpoint("r.example.org", verify=False), "https://port.net:1/", True, True),
        (REGISTRY, "https://port.net/", True, False),
    ],
)
def test_where_credentials_may_go(registry: Endpoint, url: str, asked: bool, trusted: bool) -> None:
    realm, known = Realm.parse(url), {"known.net", "port.net:1"}
    assert realm.may_be_asked(registry, known) is asked
    assert realm.may_have_credentials(registry, known) is trusted


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/token",
        "ftp://h/",
        "https://",
        "https://user:pass@h/",
        "https://[h/",
        "https://h:0/",
        "https://h/\r\nX: y",
        "https://h/a b",
        "https://h\xe9/",
        "file:///etc/passwd",
    ],
)
def test_what_is_no_realm_is_refused(url: str) -> None:
    with pytest.raises(InvalidContent, match=r"^not the URL of a token server: "):
        Realm.parse(url)


class Elsewhere(Transport):
    """Leads to a token server on this machine, whatever host is asked."""

    def __init__(self, tokens: TokenServer, authorization: Fixed) -> None:
        server = Endpoint(Realm.parse(tokens.url).host, plain_http=True)
        super().__init__(server, Access(), authorization=authorization)
        self._url = tokens.url

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | Body | None = None,
        scopes: Sequence[str] = (),
    ) -> Answer:
        url = f"{self._url}?{urlsplit(url).query}"
        return super().request(method, url, headers, body, scopes)


def elsewhere(
    registry: Registry, tokens: TokenServer, credentials: Credentials, known: tuple[str, ...] = ()
) -> tuple[Transport, list[str]]:
    """Return a transport to the registry, and where its authorization asked for tokens."""
    asked: list[str] = []

    def open_realm(realm: Realm, authorization: Fixed) -> Transport:
        asked.append(realm.url)
        return Elsewhere(tokens, authorization)

    authorization = Authorization(
        endpoint(registry),
        ["repository:app:pull,push"],
        lambda: credentials,
        open_realm,
        known,
    )
    return Transport(endpoint(registry), Access(), authorization=authorization), asked


@pytest.mark.parametrize(
    "credentials",
    [Credentials("FILE", "me", SECRET), Credentials("FILE", identity_token=IDENTITY)],
)
def test_credentials_are_not_sent_to_another_host_unless_it_is_known(
    registry: Registry,
    tokens: TokenServer,
    credentials: Credentials,
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry.guard = None
    other = 'Bearer realm="https://auth.other.net/token",service="registry"'
    registry.faults.append(Fault(".*", "/", Status(401, {"WWW-Authenticate": other}), times=None))
    transport, asked = elsewhere(registry, tokens, credentials)
    with (
        transport,
        transport.request("GET", "/v2/app/tags/list") as answer,
        pytest.raises(RegistryError) as raised,
    ):
        answer.expect(200)
    assert asked == ["https://auth.other.net/token"]
    assert [(r.method, r.user) for r in tokens.requests] == [("GET", "")]
    assert "Authorization" not in tokens.requests[0].headers
    assert IDENTITY not in str(tokens.requests[0].scopes)
    words = "the credentials of FILE are not sent to https://auth.other.net/token, another host"
    assert words in caplog.text
    words = "asked anonymously: the credentials of FILE are not for auth.other.net (HTTP 401)"
    assert str(raised.value).endswith(words)

    tokens.requests.clear()
    transport, asked = elsewhere(registry, tokens, credentials, ("auth.other.net",))
    with transport, transport.request("GET", "/v2/app/tags/list"):
        pass
    assert [r.user for r in tokens.requests] == ["me"]


@pytest.mark.parametrize(
    "value",
    [
        'Bearer realm="http://169.254.169.254/latest/meta-data"',
        'Bearer realm="http://auth.example.org/token"',
    ],
)
def test_no_token_is_fetched_by_http_from_another_host(
    registry: Registry, tokens: TokenServer, value: str
) -> None:
    registry.guard = None
    registry.faults.append(Fault(".*", "/", Status(401, {"WWW-Authenticate": value}), times=None))
    transport, asked = elsewhere(registry, tokens, Credentials("FILE", "me", SECRET))
    with transport, pytest.raises(RegistryError, match="by HTTP from another host, "):
        transport.request("GET", "/v2/app/tags/list")
    assert asked == []


def challenges_of(registry: Registry, *values: str) -> None:
    """Have the registry ask for this, and take whatever comes."""
    registry.guard = None
    status = Status(401, {"WWW-Authenticate": ", ".join(values)})
    registry.faults.append(Fault(".*", "/", status))


def sent(registry: Registry, tokens: TokenServer, credentials: Credentials) -> str:
    """Return the scheme of what is sent then."""
    registry.requests.clear()
    transport, _ = elsewhere(registry, tokens, credentials)
    with transport, transport.request("GET", "/v2/app/tags/list"):
        pass
    return registry.requests[-1].headers.get("Authorization", "").partition(" ")[0]


def test_of_several_challenges_the_best_is_answered(
    registry: Registry, tokens: TokenServer
) -> None:
    password = Credentials("f", "me", SECRET)
    identity = Credentials("f", identity_token=IDENTITY)
    given = Credentials("f", registry_token="x")
    basic, bearer = 'Basic realm="x"', f'Bearer realm="{tokens.url}",service="registry"'
    other = 'Bearer realm="https://auth.other.net/token",service="registry"'
    for values, credentials, scheme in (
        ((basic,), password, "Basic"),
        ((basic, bearer), password, "Bearer"),
        ((bearer, basic), password, "Bearer"),
        (("Negotiate", "Digest realm=x", basic), password, "Basic"),
        ((other, basic), password, "Basic"),
        ((basic, other, bearer), password, "Bearer"),
        ((basic, bearer), identity, "Bearer"),
        ((basic,), identity, ""),
        ((basic,), given, ""),
        ((bearer,), given, "Bearer"),
        (("Negotiate",), password, ""),
        ((), password, ""),
    ):
        challenges_of(registry, *values)
        assert sent(registry, tokens, credentials) == scheme, values


def test_a_registry_cannot_have_a_token_for_other_repositories(
    registry: Registry, tokens: TokenServer
) -> None:
    scope = "repository:victim:pull,push repository:app:delete registry:catalog:*"
    challenges_of(registry, f'Bearer realm="{tokens.url}",service="registry",scope="{scope}"')
    sent(registry, tokens, Credentials("f", "me", SECRET))
    assert tokens.requests[0].scopes == ("repository:app:delete,pull,push",)


def test_another_host_is_not_answered(registry: Registry, tokens: TokenServer) -> None:
    """Neither does a redirect take a token along, nor may its end ask for one."""
    with Registry() as cdn:
        asking = f'Bearer realm="{tokens.url}",service="registry"'
        cdn.faults.append(Fault("GET", "/", Status(401, {"WWW-Authenticate": asking}), times=None))
        registry.faults.append(Fault("GET", "/blobs/", Status(307, {"Location": f"{cdn.url}/x"})))
        with (
            open_repository(Reference.parse(f"{registry.host}/app"), ME) as repository,
            pytest.raises(RegistryError, match="HTTP 401"),
        ):
            repository.blob(Descriptor("x", Digest.of(b""), 0))
        assert "Authorization" not in cdn.requests[0].headers
        assert tokens.requests == []


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "is not a JSON object"),
        (b"[]", "is not a JSON object"),
        (SECRET.encode(), "is not a JSON object"),
        (b"{}", "not a token"),
        (json.dumps({"token": f"{SECRET}\r\nX-Evil: 1"}).encode(), "not a token"),
        (json.dumps({"token": [SECRET]}).encode(), "token of answer to"),
        (b" " * (1 << 20), "has over 262144 bytes"),
    ],
)
def test_an_answer_that_is_no_token_gives_one_line(
    image: GeneratedImage, answer: bytes, words: str
) -> None:
    with Registry() as realm, Registry() as registry:
        realm.faults.append(Fault("GET", "/", Status(200, {}, answer), times=None))
        asking = Status(401, {"WWW-Authenticate": f'Bearer realm="{realm.url}/token"'})
        registry.faults.append(Fault(".*", "/", asking, times=None))
        error = refusal(registry, image, ME)
        assert words in str(error)
        assert "\n" not in str(error)


def test_a_redirected_realm_gets_no_password(image: GeneratedImage, tokens: TokenServer) -> None:
    with Registry() as realm, Registry() as registry:
        realm.faults.append(Fault("GET", "/", Status(307, {"Location": tokens.url}), times=None))
        asking = Status(401, {"WWW-Authenticate": f'Bearer realm="{realm.url}/token"'})
        registry.faults.append(Fault(".*", "/", asking, times=None))
        refusal(registry, image, ME)
        assert "Authorization" in realm.requests[0].headers
        assert "Authorization" not in tokens.requests[0].headers


def test_a_malformed_challenge_gives_one_line(image: GeneratedImage) -> None:
    with Registry() as registry:
        asking = Status(401, {"WWW-Authenticate": 'Bearer realm="'})
        registry.faults.append(Fault(".*", "/", asking, times=None))
        assert "not a WWW-Authenticate header" in str(refusal(registry, image, ME))


@given(st.lists(st.from_regex(r"[a-z]{1,3}:[a-z:]{0,4}:[a-d,]{1,4}", fullmatch=True), max_size=6))
def test_joined_scopes_cover_their_parts(texts: list[str]) -> None:
    whole = Scopes.parse(texts)
    assert Scopes.parse(whole) == whole
    for text in texts:
        part = Scopes.parse([text])
        assert whole.covers(part)
        assert whole.covers(whole.about(part))
        assert part.joined(whole) == whole
