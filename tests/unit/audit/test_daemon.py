"""Accounts of daemons that no distribution packages yet, and malformed ones."""

import json
import socket

import pytest

from ocistow.audit.daemon import Account, Held, account
from ocistow.oci.digest import Digest
from ocistow.oci.errors import InvalidContent
from ocistow.publish.access import Access
from ocistow.publish.docker.engine import Engine
from ocistow.publish.docker.host import find_host
from ocistow.testing.peers import scripted

IMAGE = {
    "Id": f"sha256:{'1' * 64}",
    "RepoTags": ["a:1", "<none>:<none>"],
    "RepoDigests": [f"a@sha256:{'2' * 64}", "<none>@<none>"],
    "Size": 70,
    "SharedSize": 30,
}
HELD = Held(Digest("sha256", "1" * 64), ("a:1",), frozenset({Digest("sha256", "2" * 64)}), 70, 30)


def told(document: object) -> Account:
    """Ask a daemon that answers so."""
    body = json.dumps(document).encode()

    def answer(connection: socket.socket) -> None:
        asked = connection.recv(4096)
        assert asked.startswith(b"GET /system/df?type=image&verbose=1 ")
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        connection.sendall(head + body)

    with scripted(answer) as host:
        access = Access(docker_host=f"tcp://{host}")
        with Engine(find_host(access, {}), access.timeout) as engine:
            return account(engine)


@pytest.mark.parametrize(
    "document",
    [
        {"LayersSize": 90, "Images": [IMAGE], "Containers": None},
        {"ImageUsage": {"TotalCount": 1, "TotalSize": 90, "Items": [IMAGE]}},
    ],
)
def test_both_forms_are_understood(document: object) -> None:
    found = told(document)
    assert (found.images, found.total) == ((HELD,), 90)
    assert found.images[0].unique == 40


def test_an_empty_daemon_has_nothing() -> None:
    documents: list[dict[str, object]] = [{"LayersSize": 0, "Images": None}, {"ImageUsage": {}}, {}]
    for document in documents:
        assert told(document).images == ()


def test_what_is_not_said_is_not_guessed() -> None:
    [held] = told({"Images": [{**IMAGE, "SharedSize": -1, "RepoTags": None}]}).images
    assert (held.names, held.shared, held.unique) == ((), None, None)


def test_a_wrong_account_is_passed_on() -> None:
    [held] = told({"Images": [{**IMAGE, "SharedSize": 100}]}).images
    assert held.unique == -30


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"Images": [{**IMAGE, "Id": "no digest"}]},
        {"Images": [{**IMAGE, "Size": "70"}]},
        {"Images": [{**IMAGE, "Size": None}]},
        {"Images": [{**IMAGE, "RepoDigests": ["a@latest"]}]},
        {"LayersSize": 1 << 70, "Images": []},
    ],
)
def test_a_malformed_account_is_refused(document: object) -> None:
    with pytest.raises(InvalidContent):
        told(document)
