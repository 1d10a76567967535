import hashlib
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
import requests

from ocistow.oci.digest import Digest
from ocistow.testing.exchange import Request
from ocistow.testing.faults import (
    Action,
    Drop,
    Endless,
    Fault,
    Faults,
    Flip,
    Hang,
    LoseAnswer,
    Stall,
    Status,
    Surplus,
    Truncate,
    WrongDigest,
)
from ocistow.testing.registry import Registry

BLOB = bytes(range(256)) * 4096  # 1 MiB
DIGEST = Digest("sha256", hashlib.sha256(BLOB).hexdigest())
TIMEOUT = 0.2  # seconds a client waits for an answer that never comes
HANG = 60.0  # seconds after which something is broken


@pytest.fixture
def registry() -> Iterator[Registry]:
    """Serve a registry whose repository `a` has BLOB."""
    with Registry() as registry:
        url = f"{registry.url}/v2/a/blobs/uploads/?digest={DIGEST}"
        assert requests.post(url, data=BLOB, timeout=HANG).status_code == 201
        registry.requests.clear()
        yield registry


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


def blob(registry: Registry) -> str:
    return f"{registry.url}/v2/a/blobs/{DIGEST}"


def order(registry: Registry, action: Action, method: str = "GET") -> None:
    registry.faults.append(Fault(method, "/blobs/", action))


def ended(registry: Registry) -> Request:
    """Return the last request, which its client gave up, once the registry has ended it."""
    while not registry.requests:  # until the handler has it
        pass
    request = registry.requests[-1]
    assert request.ended.wait(HANG)
    return request


def read(response: requests.Response) -> bytes:
    """Return what comes until the body breaks off."""
    data = bytearray()
    try:
        with response:
            for chunk in response.iter_content(1000):
                data += chunk
    except requests.RequestException:
        return bytes(data)
    pytest.fail("the body came to its end")


def test_a_fault_is_used_up_and_the_first_match_counts() -> None:
    faults = Faults()
    faults.append(Fault("GET|HEAD", "/blobs/", Hang(), times=2))
    faults.append(Fault("GET", "/a/", Drop(), times=None))
    assert faults.take("GETS", "/a/blobs/") is None
    assert faults.take("PUT", "/a/blobs/") is None
    assert faults.take("GET", "/a/manifests/") == Drop()
    assert faults.take("GET", "/a/blobs/") == Hang()
    assert faults.take("HEAD", "/a/blobs/") == Hang()
    assert [faults.take("GET", "/a/blobs/") for _ in range(3)] == [Drop()] * 3
    assert len(faults) == 1
    faults.clear()
    assert faults.take("GET", "/a/blobs/") is None


def test_after_its_faults_the_registry_is_well(
    registry: Registry, session: requests.Session
) -> None:
    registry.faults.append(Fault("GET", "/blobs/", Status(503), times=2))
    answers = [session.get(blob(registry)) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503, 503, 200]
    assert answers[2].content == BLOB


def test_a_status_comes_with_headers_and_body_and_nothing_is_done(
    registry: Registry, session: requests.Session
) -> None:
    order(registry, Status(429, {"Retry-After": "7"}, b"later"), "POST")
    url = f"{registry.url}/v2/b/blobs/uploads/?digest={DIGEST}"
    response = session.post(url, data=BLOB)
    assert (response.status_code, response.headers["Retry-After"]) == (429, "7")
    assert response.content == b"later"
    assert not registry.repositories.blobs("b")
    assert registry.requests[0].received == len(BLOB)


def test_a_redirect_leads_to_another_registry(
    registry: Registry, session: requests.Session
) -> None:
    with Registry() as front:
        front.faults.append(Fault("GET", "/x/", Status(307, {"Location": blob(registry)})))
        response = session.get(f"{front.url}/v2/x/blobs/{DIGEST}", auth=("user", "pass"))
        assert response.content == BLOB
        assert "Authorization" in front.requests[0].headers
        assert "Authorization" not in registry.requests[0].headers


def test_a_dropped_answer_breaks_off(registry: Registry, session: requests.Session) -> None:
    order(registry, Drop(5000))
    data = read(session.get(blob(registry), stream=True))
    assert len(data) <= 5000
    assert BLOB.startswith(data)


def test_a_dropped_upload_keeps_what_came(registry: Registry, session: requests.Session) -> None:
    location = session.post(f"{registry.url}/v2/b/blobs/uploads/").headers["Location"]
    order(registry, Drop(5000), "PATCH")
    with pytest.raises(requests.ConnectionError):
        session.patch(location, data=BLOB)
    assert registry.requests[-1].received == 5000
    status = session.get(location)
    assert status.headers["Range"] == "0-4999"
    url = f"{status.headers['Location']}&digest={DIGEST}"
    assert session.put(url, data=BLOB[5000:]).status_code == 201


@pytest.mark.parametrize("after", [0, len(BLOB) - 1, len(BLOB), len(BLOB) + 1])
def test_a_dropped_commit_is_none(
    registry: Registry, session: requests.Session, after: int
) -> None:
    order(registry, Drop(after), "POST")
    with pytest.raises(requests.ConnectionError):
        session.post(f"{registry.url}/v2/b/blobs/uploads/?digest={DIGEST}", data=BLOB)
    assert registry.requests[-1].received == min(after, len(BLOB))
    assert not registry.repositories.blobs("b")


@pytest.mark.parametrize("action", [LoseAnswer(), Hang(served=True)])
def test_a_lost_answer_hides_a_success(
    registry: Registry, session: requests.Session, action: Action
) -> None:
    order(registry, action, "POST")
    with pytest.raises((requests.ConnectionError, requests.ReadTimeout)):
        session.post(
            f"{registry.url}/v2/b/blobs/uploads/?digest={DIGEST}", data=BLOB, timeout=TIMEOUT
        )
    assert ended(registry).status is None
    assert registry.repositories.blobs("b") == {DIGEST}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_digest_header_can_lie(
    registry: Registry, session: requests.Session, method: str
) -> None:
    order(registry, WrongDigest(), method)
    response = session.request(method, blob(registry))
    assert response.headers["Docker-Content-Digest"] == "sha256:" + "0" * 64
    assert response.headers["Content-Length"] == str(len(BLOB))


@pytest.mark.parametrize("at", [0, 70_000, -1])
def test_one_byte_is_flipped(registry: Registry, session: requests.Session, at: int) -> None:
    order(registry, Flip(at))
    got = session.get(blob(registry)).content
    assert len(got) == len(BLOB)
    assert [n for n, pair in enumerate(zip(got, BLOB, strict=True)) if pair[0] != pair[1]] == [
        at % len(BLOB)
    ]


@pytest.mark.parametrize("after", [0, 5000])
def test_a_body_is_shorter_than_announced(
    registry: Registry, session: requests.Session, after: int
) -> None:
    order(registry, Truncate(after))
    response = session.get(blob(registry), stream=True)
    assert response.headers["Content-Length"] == str(len(BLOB))
    assert read(response) == BLOB[:after]


def test_a_body_is_longer_than_the_content(registry: Registry, session: requests.Session) -> None:
    order(registry, Surplus(3))
    response = session.get(blob(registry))
    assert response.headers["Content-Length"] == str(len(BLOB) + 3)
    assert response.content == BLOB + bytes(3)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", [f"blobs/{DIGEST}", "manifests/absent"])
def test_a_body_never_ends(
    registry: Registry, session: requests.Session, path: str, chunked: bool
) -> None:
    registry.faults.append(Fault("GET", path, Endless(chunked=chunked)))
    with session.get(f"{registry.url}/v2/a/{path}", stream=True) as response:
        assert "Content-Length" not in response.headers
        assert ("Transfer-Encoding" in response.headers) == chunked
        enough = 0
        for chunk in response.iter_content(1 << 20):
            enough += len(chunk)
            if enough > 5 * len(BLOB):
                break
        else:
            pytest.fail("the body ended")


def test_a_hanging_answer_never_starts(registry: Registry, session: requests.Session) -> None:
    order(registry, Hang(), "POST")
    url = f"{registry.url}/v2/b/blobs/uploads/?digest={DIGEST}"
    with pytest.raises(requests.ReadTimeout):
        session.post(url, data=BLOB, timeout=TIMEOUT)
    assert ended(registry).status is None
    assert not registry.repositories.blobs("b")


@pytest.mark.parametrize("action", [Hang(), Endless()])
def test_a_registry_closes_although_a_client_waits(action: Action) -> None:
    with Registry() as registry:
        registry.faults.append(Fault("GET", "/", action))
        host, port = registry.host.split(":")
        client = socket.create_connection((host, int(port)))
        client.sendall(b"GET /v2/ HTTP/1.1\r\n\r\n")
        while not registry.requests:  # until the handler has it
            pass
    with closing(client):
        while True:  # whatever was under way; then the end, in one way or the other
            try:
                if not client.recv(1 << 20):
                    break
            except ConnectionResetError:
                break


def test_a_client_that_leaves_in_the_middle_is_no_warning(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with Registry() as registry:
        host, port = registry.host.split(":")
        for body in (
            b"Content-Length: 99\r\n\r\nabc",
            b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        ):
            with socket.create_connection((host, int(port))) as client:
                path = f"/v2/b/blobs/uploads/?digest={DIGEST}".encode()
                client.sendall(b"POST %b HTTP/1.1\r\n%b" % (path, body))
        while len(registry.requests) < 2:
            pass
    assert not registry.repositories.blobs("b")
    assert capfd.readouterr().err == ""


def test_stall_sends_the_rest_when_it_is_told_to(
    registry: Registry, session: requests.Session
) -> None:
    stall = Stall(1000)
    order(registry, stall)
    with session.get(blob(registry), timeout=HANG, stream=True) as response:
        assert stall.reached.wait(HANG)
        assert response.raw.read(1000) == BLOB[:1000]
        stall.go_on.set()
        assert response.raw.read() == BLOB[1000:]


def test_stall_ends_with_the_client_or_the_registry(session: requests.Session) -> None:
    with Registry() as registry:
        url = f"{registry.url}/v2/a/blobs/uploads/?digest={DIGEST}"
        assert session.post(url, data=BLOB, timeout=HANG).status_code == 201
        stall = Stall(1000)
        order(registry, stall)
        response = session.get(blob(registry), timeout=HANG, stream=True)
        assert stall.reached.wait(HANG)
    assert read(response) == BLOB[:1000]
