"""A registry behind nginx: certificates for both sides, small bodies, a server that fails."""

import os
import re
import socket
import subprocess
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from io import BytesIO
from pathlib import Path

import pytest

from ocistow.oci.descriptor import OCI_LAYER, Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.errors import RegistryError
from ocistow.oci.reference import Reference
from ocistow.publish.access import Access
from ocistow.publish.copy import Copied, copy
from ocistow.publish.distribution.hosts import open_repository
from ocistow.publish.layout import LayoutSource, StoreSink
from ocistow.publish.registry import RegistrySink
from ocistow.publish.source import Blob
from ocistow.publish.transports import open_sink, open_source
from ocistow.store.store import Store
from ocistow.testing.images import GeneratedImage, image_layout
from ocistow.testing.proxy import proxying

from ..conftest import DockerRegistry, program, running

pytestmark = pytest.mark.registry

KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
NAMES = "subjectAltName=IP:127.0.0.2,DNS:registry.test"
Front = Callable[..., AbstractContextManager[str]]


def certify(directory: Path, name: str, file: str, *more: str) -> None:
    """Make a certificate of our authority, or without `more` the authority itself."""
    files = ["-keyout", str(directory / f"{name}.key"), "-out", str(directory / f"{name}{file}")]
    command = [program("openssl"), "req", "-x509", *KEY, "-subj", f"/CN={name}", *files, *more]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the keys of an authority and of a server."""
    directory = tmp_path_factory.mktemp("authority")
    certify(directory, "ca", ".crt")
    certify(directory, "server", ".crt", *by(directory), "-addext", NAMES)
    return directory


@pytest.fixture(scope="module")
def certificates(authority: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user has: the authority, and a certificate of his own with its key."""
    directory = tmp_path_factory.mktemp("certificates")
    (directory / "ca.crt").write_bytes((authority / "ca.crt").read_bytes())
    certify(directory, "client", ".cert", *by(authority))
    return directory


def by(authority: Path) -> list[str]:
    return ["-CA", str(authority / "ca.crt"), "-CAkey", str(authority / "ca.key")]


@pytest.fixture
def front(tmp_path: Path, authority: Path, docker_registry: DockerRegistry) -> Front:
    """Run nginx in front of the registry; the arguments go into its configuration."""

    @contextmanager
    def front(server: str = "", http: str = "", *, tls: bool = True) -> Generator[str]:
        # at this address nobody else takes the port before nginx does
        with socket.socket() as free:
            free.bind(("127.0.0.2", 0))
            host = f"127.0.0.2:{free.getsockname()[1]}"
        directory = tmp_path / "nginx"
        directory.mkdir()
        paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        temporary = "\n".join(f"{path}_temp_path {directory}/{path};" for path in paths)
        user = "user root;" if os.geteuid() == 0 else ""
        certificate = f"""
            ssl_certificate {authority}/server.crt;
            ssl_certificate_key {authority}/server.key;
            ssl_client_certificate {authority}/ca.crt;
            ssl_verify_client on;
        """
        (directory / "nginx.conf").write_text(
            f"""
            daemon off; worker_processes 1; {user}
            error_log stderr notice; pid {directory}/pid;
            events {{ worker_connections 64; }}
            http {{
                access_log {directory}/access; client_max_body_size 0; {temporary}
                {http}
                server {{
                    listen {host} {"ssl" if tls else ""};
                    {certificate if tls else ""}
                    {server}
                    location / {{
                        proxy_pass http://{docker_registry.host};
                        proxy_set_header Host $http_host;
                        proxy_set_header X-Forwarded-Proto $scheme;
                        proxy_request_buffering off;
                    }}
                }}
            }}
            """
        )
        # -e: what it says before it knows its configuration
        command = [program("nginx"), "-e", "stderr", "-p", str(directory)]
        with running([*command, "-c", str(directory / "nginx.conf")]) as log:
            log.wait_for("start worker process ")
            yield host

    return front


@pytest.fixture
def image(tmp_path: Path) -> GeneratedImage:
    return image_layout(tmp_path / "layout", seed=int.from_bytes(os.urandom(4)), layers=4)


def publish(image: GeneratedImage, text: str, access: Access) -> Copied:
    with open_sink(text, access=access) as sink:
        return copy(LayoutSource(image.path), sink, jobs=1)


def digest_by_skopeo(text: str, *options: str) -> str:
    command = [program("skopeo"), "inspect", "--format", "{{.Digest}}", *options, text]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_certificates_are_shown_and_checked(
    tmp_path: Path, front: Front, certificates: Path, image: GeneratedImage
) -> None:
    access = Access(cert_dir=certificates)
    with front() as host:
        text = f"docker://{host}/tls/app:1"
        assert publish(image, text, access).root.digest == image.manifest
        digest = digest_by_skopeo(text, f"--cert-dir={certificates}")
        assert digest == str(image.manifest)
        with Store.create(tmp_path / "store") as store:
            name = Reference.parse("example.org/app:1")
            with open_source(text, store, access=access) as source:
                assert copy(source, StoreSink(store, name)).root.digest == image.manifest


def test_a_missing_certificate_is_one_line(
    tmp_path: Path, front: Front, certificates: Path, image: GeneratedImage
) -> None:
    anonymous = tmp_path / "anonymous"
    anonymous.mkdir()
    with front() as host:
        text = f"docker://{host}/tls/app:1"
        with pytest.raises(RegistryError, match=r"certificate verify failed|unable to get local"):
            publish(image, text, Access(cert_dir=anonymous, plain_http=False))
        (anonymous / "ca.crt").write_bytes((certificates / "ca.crt").read_bytes())
        with pytest.raises(RegistryError, match=r"bad request \(HTTP 400\)$"):
            publish(image, text, Access(cert_dir=anonymous))


# what becomes of the second to fourth request of a connection; 500 also ends it
FAILING = "map $request_method$connection_requests $fate { POST2 500; HEAD3 502; ~4 444; }"
FAILS = "".join(f"if ($fate = {fate}) {{ return {fate}; }}" for fate in (500, 502, 444))


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
def test_a_server_that_fails_now_and_then_gets_the_image(
    tmp_path: Path, front: Front, certificates: Path, image: GeneratedImage, *, tls: bool
) -> None:
    access = Access(cert_dir=certificates) if tls else Access()
    with front(FAILS, FAILING, tls=tls) as host:
        text = f"docker://{host}/failing/{'tls' if tls else 'plain'}:1"
        assert publish(image, text, access).root.digest == image.manifest
        with Store.create(tmp_path / "store") as store:
            name = Reference.parse("example.org/app:1")
            with open_source(text, store, access=access) as source:
                assert copy(source, StoreSink(store, name)).root.digest == image.manifest
    log = (tmp_path / "nginx" / "access").read_text()
    assert all(f'" {fate} ' in log for fate in (500, 502, 444))


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
def test_bodies_are_cut_to_what_a_server_takes(
    front: Front, certificates: Path, *, tls: bool
) -> None:
    """What is too large is refused before it is read, and the connection closed."""
    content = os.urandom(8 << 20)
    blob = Descriptor(OCI_LAYER, Digest.of(content), len(content))

    class Content:
        sparse = False

        def resolve(self) -> Descriptor:
            raise AssertionError

        def open(self, descriptor: Descriptor) -> Blob:
            return Blob(BytesIO(content), descriptor)

    access = Access(cert_dir=certificates) if tls else Access()
    with front("client_max_body_size 1m;", tls=tls) as host:
        reference = Reference.parse(f"{host}/large/{'tls' if tls else 'plain'}")
        with open_repository(reference, access, push=True) as repository:
            repository.upload(blob, Content())
            assert repository.has_blob(blob.digest)


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
def test_a_server_that_takes_no_body_is_one_line(
    front: Front, certificates: Path, image: GeneratedImage, *, tls: bool
) -> None:
    access = Access(cert_dir=certificates) if tls else Access()
    with (
        front("client_max_body_size 1k;", tls=tls) as host,
        pytest.raises(RegistryError, match=r"^P.* request entity too large \(HTTP 413\)$"),
    ):
        publish(image, f"docker://{host}/small/app:1", access)


def test_a_tunnel_through_a_proxy_leads_to_tls(
    front: Front, certificates: Path, image: GeneratedImage
) -> None:
    """The proxy sees where to, and its own credentials, but nothing of what is said."""
    name = Reference.parse("registry.test:5000/tunnel/app:1")
    access = Access(cert_dir=certificates, credentials=("me", "mine"))
    with front() as host, proxying(host) as proxy:
        environ = {"https_proxy": f"http://user:secret@{proxy.host}", "HOME": "/nonexistent"}
        with open_repository(name, access, push=True, environ=environ) as repository:
            sink = RegistrySink(repository, name)
            assert copy(LayoutSource(image.path), sink).root.digest == image.manifest
        assert len(proxy.heads) <= 4
        for head in proxy.heads:
            assert re.match(rb"CONNECT registry\.test:5000 HTTP/1\.[01]\r\n", head)
            assert b"Proxy-Authorization: Basic " in head
            assert b"\r\nAuthorization" not in head
