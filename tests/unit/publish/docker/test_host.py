import hashlib
import json
from pathlib import Path

import pytest

from ocistow.oci.errors import InvalidContent, NotFound
from ocistow.publish.access import Access
from ocistow.publish.docker.host import Certificates, Host, find_host

SOCKET = "/var/run/docker.sock"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"DOCKER_CONFIG": str(tmp_path)}


def add_context(
    directory: Path, name: str, host: str, *, insecure: bool = False, tls: bool = False
) -> None:
    identifier = hashlib.sha256(name.encode()).hexdigest()
    meta = directory / "contexts" / "meta" / identifier
    meta.mkdir(parents=True)
    endpoint = {"Host": host, "SkipTLSVerify": insecure}
    document = {"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}}
    (meta / "meta.json").write_text(json.dumps(document))
    if tls:
        (directory / "contexts" / "tls" / identifier / "docker").mkdir(parents=True)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("unix:///run/x", "/run/x"),
        ("tcp://there:99", ("there", 99)),
        ("tcp://there", ("there", 2375)),
        ("tcp://[::1]:99/", ("::1", 99)),
    ],
)
def test_addresses(url: str, address: object) -> None:
    assert Host.parse(url).address == address


def test_with_tls_the_port_is_another(tmp_path: Path) -> None:
    assert Host.parse("tcp://there", Certificates(tmp_path, verify=True)).address == ("there", 2376)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "not a docker host"),
        ("unix://", "not a docker host"),
        ("tcp://", "not a docker host"),
        ("tcp://a:b", "not a docker host"),
        ("tcp://a/path", "not a docker host"),
        ("/run/x", "not a docker host"),
        ("http://there:1", "not a docker host"),
        ("ssh://me@there/x", r"-L /tmp/docker.sock:/var/run/docker.sock me@there makes it unix"),
        ("npipe:////./pipe/docker_engine", "a pipe of Windows"),
        ("fd://", "only the daemon itself"),
    ],
)
def test_other_hosts_are_refused(url: str, words: str) -> None:
    with pytest.raises(InvalidContent, match=words):
        Host.parse(url)
    with pytest.raises(InvalidContent, match=rf"{words}.* \(from there\)$"):
        Host.parse(url, origin="from there")


@pytest.mark.parametrize(
    ("url", "near"),
    [
        ("unix:///x", True),
        ("tcp://127.0.0.2:1", True),
        ("tcp://[::1]:1", True),
        ("tcp://localhost:1", True),
        ("tcp://10.0.0.1:1", False),
        ("tcp://there:1", False),
    ],
)
def test_which_hosts_are_near(url: str, near: bool) -> None:
    assert Host.parse(url).is_near is near


def test_the_default_says_that_it_is_one(environment: dict[str, str]) -> None:
    host = find_host(Access(), environment)
    assert host.address == SOCKET
    words = "the default, as DOCKER_HOST is not set"
    assert str(host) == f"docker daemon at unix://{SOCKET} ({words})"


def test_the_order_is_that_of_docker(tmp_path: Path, environment: dict[str, str]) -> None:
    for number, name in enumerate(("current", "variable"), 1):
        add_context(tmp_path, name, f"tcp://{name}:{number}")
    (tmp_path / "config.json").write_text('{"currentContext": "current"}')
    assert find_host(Access(), environment).address == ("current", 1)
    environment["DOCKER_CONTEXT"] = "variable"
    assert find_host(Access(), environment).address == ("variable", 2)
    assert str(find_host(Access(), environment)).endswith("(docker context 'variable')")
    environment["DOCKER_HOST"] = "tcp://host:3"
    assert find_host(Access(), environment).address == ("host", 3)
    assert str(find_host(Access(), environment)).endswith("(from DOCKER_HOST)")
    asked = find_host(Access(docker_host="unix:///asked"), environment)
    assert str(asked) == "docker daemon at unix:///asked"
    environment |= {"DOCKER_HOST": "", "DOCKER_CONTEXT": "default"}
    assert find_host(Access(), environment).address == SOCKET


def test_certificates_come_from_the_variables(tmp_path: Path, environment: dict[str, str]) -> None:
    environment |= {"DOCKER_HOST": "tcp://there", "DOCKER_TLS": "1"}
    host = find_host(Access(), environment)
    assert host.certificates == Certificates(tmp_path, verify=False)
    environment |= {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/certs"}
    host = find_host(Access(), environment)
    assert host.certificates == Certificates(Path("/certs"), verify=True)
    asked = find_host(Access(docker_host="tcp://asked"), environment)
    assert asked.certificates == host.certificates


@pytest.mark.parametrize(("insecure", "tls"), [(False, False), (True, False), (False, True)])
def test_certificates_come_from_the_context(
    tmp_path: Path, environment: dict[str, str], insecure: bool, tls: bool
) -> None:
    add_context(tmp_path, "it", "tcp://there", insecure=insecure, tls=tls)
    host = find_host(Access(), {**environment, "DOCKER_CONTEXT": "it", "DOCKER_TLS_VERIFY": "1"})
    directory = hashlib.sha256(b"it").hexdigest()
    expected = Certificates(
        tmp_path / "contexts" / "tls" / directory / "docker", verify=not insecure
    )
    assert host.certificates == (expected if insecure or tls else None)


def test_an_unknown_context_is_not_found(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "config.json").write_text('{"currentContext": "lost"}')
    words = r"^docker context 'lost' \(the current docker context\): not found$"
    with pytest.raises(NotFound, match=words):
        find_host(Access(), environment)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"currentContext": 1}', '{"currentContext": "it"', "\xff"]
)
def test_malformed_configuration_gives_one_line(
    tmp_path: Path, environment: dict[str, str], text: str
) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InvalidContent, match=r"config\.json") as raised:
        find_host(Access(), environment)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("document", ["{}", '{"Endpoints": {}}', '{"Endpoints": {"docker": []}}'])
def test_a_malformed_context_gives_one_line(
    tmp_path: Path, environment: dict[str, str], document: str
) -> None:
    add_context(tmp_path, "it", "tcp://there")
    [meta] = (tmp_path / "contexts" / "meta").rglob("meta.json")
    meta.write_text(document)
    with pytest.raises(InvalidContent, match="docker context 'it'"):
        find_host(Access(), {**environment, "DOCKER_CONTEXT": "it"})


def test_certificates_that_are_none_give_one_line(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("nonsense")
    with pytest.raises(InvalidContent, match=f"^{tmp_path} has no certificates"):
        Certificates(tmp_path, verify=True).context()
    (tmp_path / "ca.pem").write_text("nonsense")
    with pytest.raises(InvalidContent, match=f"^{tmp_path} has no certificates"):
        Certificates(tmp_path, verify=True).context()
