import base64
import logging
from pathlib import Path

import pytest

from ocistow.oci.errors import InvalidContent, RegistryError, RegistryUnavailable
from ocistow.oci.reference import Reference
from ocistow.publish.access import Access
from ocistow.publish.copy import copy
from ocistow.publish.distribution.endpoint import Endpoint
from ocistow.publish.distribution.proxies import Proxies
from ocistow.publish.distribution.repository import Repository
from ocistow.publish.distribution.transport import Fixed, Transport
from ocistow.publish.layout import LayoutSource
from ocistow.publish.registry import RegistrySink
from ocistow.testing.images import image_layout
from ocistow.testing.proxy import proxying
from ocistow.testing.registry import Registry

P, Q = "http://p:1", "http://q:2"
ELSEWHERE = Endpoint("registry.test:5000", plain_http=True)
NAME = Reference.parse("registry.test:5000/app:1")
USER = "Basic " + base64.b64encode(b"user:pass word").decode()


@pytest.mark.parametrize(
    ("environ", "url", "proxy"),
    [
        ({}, "http://a.test/", None),
        ({"HTTP_PROXY": P}, "http://a.test/", P),
        ({"http_proxy": P}, "http://a.test/", P),
        ({"HTTP_PROXY": Q, "http_proxy": P}, "http://a.test/", Q),
        ({"HTTP_PROXY": P}, "https://a.test/", None),
        ({"HTTPS_PROXY": P}, "https://a.test/", P),
        ({"https_proxy": P}, "https://a.test/", P),
        ({"ALL_PROXY": P, "HTTPS_PROXY": Q}, "https://a.test/", Q),
        ({"ALL_PROXY": P, "HTTPS_PROXY": Q}, "http://a.test/", P),
        ({"all_proxy": P}, "https://a.test/", P),
        ({"HTTP_PROXY": "p:1"}, "http://a.test/", P),
        ({"HTTP_PROXY": "https://u:p@p"}, "http://a.test/", "https://u:p@p"),
        ({"HTTP_PROXY": ""}, "http://a.test/", None),
        ({"HTTP_PROXY": P, "REQUEST_METHOD": "GET"}, "http://a.test/", None),
        ({"http_proxy": P, "REQUEST_METHOD": "GET"}, "http://a.test/", P),
        ({"HTTP_PROXY": P}, "http://localhost:5000/", None),
        ({"HTTP_PROXY": P}, "http://127.9.9.9:5000/", None),
        ({"HTTP_PROXY": P}, "http://[::1]:5000/", None),
    ],
)
def test_the_variables_of_curl_and_go_count(
    environ: dict[str, str], url: str, proxy: str | None
) -> None:
    assert Proxies(environ).proxy(url) == proxy


@pytest.mark.parametrize(
    ("direct", "host", "expected"),
    [
        ("*", "a.test", True),
        ("a.test", "a.test", True),
        ("a.test", "b.a.test", True),
        ("a.test", "xa.test", False),
        ("A.TEST", "a.test", True),
        ("a.test", "a.test.", True),
        (".a.test", "a.test", False),
        (".a.test", "b.a.test", True),
        ("*.a.test", "b.a.test", True),
        ("*.a.test", "a.test", False),
        ("b.test, a.test ,", "a.test", True),
        ("a.test:80", "a.test", True),
        ("a.test:81", "a.test", False),
        ("a.test:81", "a.test:81", True),
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.0/8", "10.9.9.9", True),
        ("10.0.0.0/8", "11.9.9.9", False),
        ("10.0.0.1:80", "10.0.0.1", True),
        ("10.0.0.1:81", "10.0.0.1", False),
        ("fd00::/8", "[fd00::1]", True),
        ("[fd00::1]", "[fd00::1]", True),
        ("fd00::/8", "[fe00::1]", False),
        ("10.0.0.0/8", "a.test", False),
        ("", "a.test", False),
        ("x/y", "a.test", False),
    ],
)
def test_no_proxy_names_what_is_reached_directly(direct: str, host: str, expected: bool) -> None:
    found = Proxies({"http_proxy": P, "no_proxy": direct}).proxy(f"http://{host}/")
    assert (found is None) is expected


@pytest.mark.parametrize("proxy", ["socks5://u:secret@p", "http://", "http://u:secret@[p", "p:0"])
def test_what_is_no_http_proxy_is_said_without_its_password(proxy: str) -> None:
    with pytest.raises(InvalidContent, match=r"^not an HTTP proxy: ") as raised:
        Proxies({"http_proxy": proxy}).proxy("http://a.test/")
    assert "secret" not in str(raised.value)


def test_a_proxy_carries_an_image_and_only_the_proxy_sees_its_credentials(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    image = image_layout(tmp_path / "layout", layers=2)
    with (
        Registry(credentials=("me", "mine"), relative=True) as registry,
        proxying(registry.host, USER) as proxy,
    ):
        environ = {"http_proxy": f"http://user:pass%20word@{proxy.host}"}
        mine = Fixed(registry.authorization)
        with Transport(ELSEWHERE, Access(), authorization=mine, environ=environ) as transport:
            sink = RegistrySink(Repository(transport, "app"), NAME)
            assert copy(LayoutSource(image.path), sink).root.digest == image.manifest
        assert len(proxy.heads) == len(registry.requests)
        assert all(USER.encode() in head for head in proxy.heads)
        assert not any("Proxy-Authorization" in request.headers for request in registry.requests)
        assert all("Authorization" in request.headers for request in registry.requests)
    assert "pass" not in caplog.text
    assert USER not in caplog.text


@pytest.mark.parametrize("plain_http", [True, False])
def test_a_proxy_that_is_not_there_is_named(plain_http: bool) -> None:
    environ = {"ALL_PROXY": "http://user:secret@127.0.0.1:1"}
    endpoint = Endpoint("registry.test", plain_http=plain_http)
    with (
        Transport(endpoint, Access(), lambda _: None, environ=environ) as transport,
        pytest.raises(
            RegistryUnavailable, match=r"proxy 127\.0\.0\.1:1: connection refused$"
        ) as raised,
    ):
        Repository(transport, "app").manifest("1")
    assert "secret" not in str(raised.value)


def test_a_proxy_that_refuses_is_one_line() -> None:
    with Registry() as registry, proxying(registry.host, USER) as proxy:
        environ = {"ALL_PROXY": f"http://user:wrong@{proxy.host}"}
        for plain_http in (True, False):
            endpoint = Endpoint("registry.test", plain_http=plain_http)
            with (
                Transport(endpoint, Access(), lambda _: None, environ=environ) as transport,
                pytest.raises(RegistryError, match=r"407|who are you") as raised,
            ):
                Repository(transport, "app").manifest("1")
            assert "wrong" not in str(raised.value)
            assert len(str(raised.value)) < 200
        assert registry.requests == []
        assert len(proxy.heads) == 2  # a wrong password is not tried again
