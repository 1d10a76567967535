"""A daemon on TCP that wants a certificate, as variables and contexts describe it."""

import hashlib
import json
import shutil
import socket
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from ocistow.oci.errors import RegistryError
from ocistow.publish.access import Access
from ocistow.publish.copy import Copied, copy
from ocistow.publish.layout import LayoutSource
from ocistow.publish.transports import open_sink
from ocistow.testing.images import GeneratedImage, image_layout

from ..conftest import program
from .conftest import trixie_dockerd

pytestmark = pytest.mark.docker

REQUEST = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an authority, and certificates for a daemon on 127.0.0.2 and for its client."""
    directory = tmp_path_factory.mktemp("certificates")
    for name, issuer, extension in (
        ("ca", None, "basicConstraints=critical,CA:TRUE"),
        ("server", "ca", "subjectAltName=IP:127.0.0.2"),
        ("client", "ca", "extendedKeyUsage=clientAuth"),
        ("other", None, "basicConstraints=critical,CA:TRUE"),
    ):
        signed = ["-CA", f"{issuer}.pem", "-CAkey", f"{issuer}-key.pem"] if issuer else []
        files = ["-keyout", f"{name}-key.pem", "-out", f"{name}.pem", "-addext", extension]
        request = [program("openssl"), *REQUEST.split(), "-subj", f"/CN={name}", *files, *signed]
        subprocess.run(request, check=True, capture_output=True, cwd=directory)
    return directory


@pytest.fixture(scope="module")
def port(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[int]:
    """The port of a daemon that trusts only clients of the authority."""
    service = tmp_path_factory.mktemp("dockerd")
    # dockerd cannot choose one by itself; at this address nobody else takes it meanwhile
    with socket.create_server(("127.0.0.2", 0)) as server:
        port = server.getsockname()[1]
    for name in ("ca.pem", "server.pem", "server-key.pem"):
        shutil.copy(certificates / name, service)
    arguments = [
        "--tlsverify",
        "--tlscacert=/srv/ca.pem",
        "--tlscert=/srv/server.pem",
        "--tlskey=/srv/server-key.pem",
        f"--host=tcp://127.0.0.2:{port}",
    ]
    with trixie_dockerd(service, arguments):
        yield port


@pytest.fixture
def image(tmp_path: Path) -> GeneratedImage:
    return image_layout(tmp_path / "layout", seed=200, layers=2)


def store_certificates(certificates: Path, directory: Path, authority: str = "ca") -> Path:
    """Lay certificates where docker expects them."""
    directory.mkdir(parents=True)
    shutil.copy(certificates / f"{authority}.pem", directory / "ca.pem")
    shutil.copy(certificates / "client.pem", directory / "cert.pem")
    shutil.copy(certificates / "client-key.pem", directory / "key.pem")
    return directory


def publish(image: GeneratedImage, name: str, host: str | None = None) -> Copied:
    with open_sink(f"docker-daemon:{name}", access=Access(docker_host=host)) as sink:
        return copy(LayoutSource(image.path), sink)


def test_the_variables_of_docker_lead_to_it(
    tmp_path: Path,
    certificates: Path,
    port: int,
    image: GeneratedImage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    directory = store_certificates(certificates, tmp_path / "certificates")
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.2:{port}")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(directory))
    assert publish(image, "variables:1").sent == 4
    assert publish(image, "variables:1").sent == 0


@pytest.mark.parametrize("authority", ["ca", "other"])
def test_a_context_leads_to_it(
    tmp_path: Path,
    certificates: Path,
    port: int,
    image: GeneratedImage,
    monkeypatch: pytest.MonkeyPatch,
    authority: str,
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text('{"currentContext": "secure"}')
    identifier = hashlib.sha256(b"secure").hexdigest()
    meta = tmp_path / "contexts" / "meta" / identifier
    meta.mkdir(parents=True)
    endpoint = {"Host": f"tcp://127.0.0.2:{port}", "SkipTLSVerify": False}
    (meta / "meta.json").write_text(
        json.dumps({"Name": "secure", "Metadata": {}, "Endpoints": {"docker": endpoint}})
    )
    directory = tmp_path / "contexts" / "tls" / identifier / "docker"
    store_certificates(certificates, directory, authority)
    if authority == "ca":
        assert publish(image, "context:1").root.digest == image.manifest
        return
    with pytest.raises(RegistryError, match=r"^docker daemon .* is not trusted: ") as raised:
        publish(image, "context:1")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("tls", ["", "1"])
def test_without_a_certificate_it_refuses(
    tmp_path: Path,
    certificates: Path,
    port: int,
    image: GeneratedImage,
    monkeypatch: pytest.MonkeyPatch,
    tls: str,
) -> None:
    directory = store_certificates(certificates, tmp_path / "certificates")
    for name in ("cert.pem", "key.pem"):
        (directory / name).unlink()
    monkeypatch.setenv("DOCKER_TLS_VERIFY", tls)
    monkeypatch.setenv("DOCKER_CERT_PATH", str(directory))
    words = "TLS: .*certificate" if tls else "HTTP request to an HTTPS server"
    with pytest.raises(RegistryError, match=words) as raised:
        publish(image, "refused:1", f"tcp://127.0.0.2:{port}")
    assert "\n" not in str(raised.value)
