import json
import socket
import ssl
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from ocistow.oci.digest import Digest
from ocistow.oci.errors import NotFound, RegistryError, RegistryUnavailable
from ocistow.oci.platform import Platform
from ocistow.oci.reference import Reference
from ocistow.publish.access import Access
from ocistow.publish.copy import Copied, copy
from ocistow.publish.distribution.endpoint import Endpoint
from ocistow.publish.distribution.transport import Transport
from ocistow.publish.layout import LayoutSource, StoreSink, StoreSource
from ocistow.publish.transports import open_sink, open_source
from ocistow.store.store import Store
from ocistow.testing.images import GeneratedImage, image_layout, index_layout, sparse_layout

from ..conftest import DockerRegistry, program, serving

pytestmark = pytest.mark.registry


def publish(path: Path, text: str) -> Copied:
    with open_sink(text) as sink:
        return copy(LayoutSource(path), sink)


def add(store: Store, text: str, name: str, platform: str = "") -> Copied:
    wanted = Platform.parse(platform) if platform else None
    with open_source(text, store, platform=wanted) as source:
        return copy(source, StoreSink(store, Reference.parse(name)))


def skopeo(*arguments: str) -> bytes:
    return subprocess.run([program("skopeo"), *arguments], check=True, capture_output=True).stdout


def test_digests_are_the_same_there_and_back(
    tmp_path: Path, docker_registry: DockerRegistry
) -> None:
    image = image_layout(tmp_path / "layout", layers=5, layer_size=300_000)
    text = f"docker://{docker_registry.host}/there/and/back:1"
    first = publish(image.path, text)
    assert (first.sent, first.present) == (7, 0)
    assert publish(image.path, text).sent == 0
    with Store.create(tmp_path / "store") as store:
        assert add(store, text, "app").root.digest == image.manifest
        assert add(store, text, "app").sent == 0
        assert set(store.blobs) == {image.manifest, image.config, *image.layers}


def test_only_the_difference_is_sent(tmp_path: Path, docker_registry: DockerRegistry) -> None:
    base = image_layout(tmp_path / "base", seed=1, layers=4)
    app = image_layout(tmp_path / "app", seed=2, layers=1, base=base)
    publish(base.path, f"docker://{docker_registry.host}/difference:1")
    copied = publish(app.path, f"docker://{docker_registry.host}/difference:2")
    assert (copied.sent, copied.present) == (3, 4)


def test_an_index_goes_whole_and_one_platform_comes_back(
    tmp_path: Path, docker_registry: DockerRegistry
) -> None:
    index = index_layout(tmp_path / "layout", seed=3)
    text = f"docker://{docker_registry.host}/index:1"
    assert publish(index.path, text).root.digest == index.index
    with Store.create(tmp_path / "store") as store:
        assert add(store, text, "all").root.digest == index.index
        one = add(store, text, "one", "linux/arm64")
        assert (one.root.digest, one.sent) == (index.images[1].manifest, 0)


def test_docker_media_types_stay(tmp_path: Path, docker_registry: DockerRegistry) -> None:
    image = image_layout(tmp_path / "layout", seed=4, media="docker")
    text = f"docker://{docker_registry.host}/docker:1"
    assert publish(image.path, text).root.digest == image.manifest
    with Store.create(tmp_path / "store") as store:
        assert add(store, text, "app").root.digest == image.manifest


def test_a_sparse_image_needs_its_layers_there(
    tmp_path: Path, docker_registry: DockerRegistry
) -> None:
    sparse = sparse_layout(tmp_path / "sparse", seed=5, layers=3, absent=1)
    text = f"docker://{docker_registry.host}/sparse"
    with Store.create(tmp_path / "store") as store:
        name = Reference.parse("sparse")
        assert add(store, f"oci:{sparse.path}", "sparse").absent == 1
        source = StoreSource(store.layout(name.path))
        with open_sink(f"{text}:1") as sink, pytest.raises(NotFound, match=str(sparse.layers[0])):
            copy(source, sink)
        publish(image_layout(tmp_path / "whole", seed=5, layers=3).path, f"{text}:whole")
        with open_sink(f"{text}:1") as sink:
            assert copy(source, sink).present == 4


def test_a_damaged_blob_is_refused_and_no_tag_appears(
    tmp_path: Path, docker_registry: DockerRegistry
) -> None:
    image = image_layout(tmp_path / "layout", seed=6, layers=1)
    blob = image.blob(image.layers[0])
    blob.write_bytes(bytes(blob.stat().st_size))
    text = f"docker://{docker_registry.host}/damaged:1"
    with pytest.raises(RegistryError, match="DIGEST_INVALID"):
        publish(image.path, text)
    with Store.create(tmp_path / "store") as store, pytest.raises(NotFound):
        add(store, text, "app")


@pytest.mark.tools
def test_skopeo_sees_what_was_published(tmp_path: Path, docker_registry: DockerRegistry) -> None:
    image = image_layout(tmp_path / "layout", seed=7)
    text = f"docker://{docker_registry.host}/seen:1"
    publish(image.path, text)
    raw = skopeo("inspect", "--raw", "--tls-verify=false", text)
    assert raw == image.blob(image.manifest).read_bytes()
    out = tmp_path / "out"
    skopeo("copy", "--src-tls-verify=false", text, f"oci:{out}:x")
    for digest in (image.manifest, image.config, *image.layers):
        assert Digest.of((out / "blobs" / "sha256" / digest.encoded).read_bytes()) == digest


@pytest.mark.tools
def test_what_skopeo_wrote_is_added(tmp_path: Path, docker_registry: DockerRegistry) -> None:
    image: GeneratedImage = image_layout(tmp_path / "layout", seed=8)
    source = f"oci:{image.path}:latest"
    text = f"docker://{docker_registry.host}/written:1"
    skopeo("copy", "--dest-tls-verify=false", source, text)
    skopeo("copy", source, f"oci-archive:{tmp_path / 'o.tar'}:x")
    skopeo("copy", source, f"docker-archive:{tmp_path / 'd.tar'}:app:1")
    with Store.create(tmp_path / "store") as store:
        assert add(store, text, "a").root.digest == image.manifest
        archive = f"oci-archive:{tmp_path / 'o.tar'}"
        assert add(store, f"{archive}:x", "b").sent == 0
        saved = add(store, f"docker-archive:{tmp_path / 'd.tar'}:app:1", "c")
        config = json.loads(image.blob(image.config).read_bytes())
        document = store.layout(Reference.parse("c").path).index()
        assert document.manifests[0].digest == saved.root.digest
        assert config["rootfs"]["diff_ids"] == [str(diff_id) for diff_id in image.diff_ids]
        assert saved.sent == 0  # the layers are those of the image, recognised by their diffIDs


def test_basic_authentication_is_not_sent_in_vain(
    tmp_path: Path, docker_registry: DockerRegistry
) -> None:
    """A registry that asks for nothing takes requests with credentials too."""
    image = image_layout(tmp_path / "layout", seed=9)
    text = f"docker://{docker_registry.host}/open:1"
    with open_sink(text, access=Access(("user", "secret"))) as sink:
        assert copy(LayoutSource(image.path), sink).sent == 5


# "secret", by bcrypt, the only form that the registry takes
HTPASSWD = "user:$2b$04$cmOeYn.P5/R1YXJaDN8pY.gCgnY3biNtH4BzSPcmcJocccQFQXFCC\n"


def test_a_registry_with_passwords(tmp_path: Path) -> None:
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    more = f"auth: {{htpasswd: {{realm: test, path: {tmp_path / 'htpasswd'}}}}}"
    image = image_layout(tmp_path / "layout")
    with serving(tmp_path / "registry", more) as registry:
        text = f"docker://{registry.host}/app:1"
        for credentials in (None, ("user", "wrong")):
            with (
                open_sink(text, access=Access(credentials)) as sink,
                pytest.raises(RegistryError, match="UNAUTHORIZED: authentication required"),
            ):
                copy(LayoutSource(image.path), sink)
        with open_sink(text, access=Access(("user", "secret"))) as sink:
            assert copy(LayoutSource(image.path), sink).root.digest == image.manifest


def certify(directory: Path) -> tuple[Path, Path]:
    """Make a certificate that nobody trusts, and its key."""
    certificate, key = directory / "certificate", directory / "key"
    request = "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost"
    files = ["-keyout", str(key), "-out", str(certificate)]
    command = [program("openssl"), *request.split(), *files]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


def test_a_registry_with_a_certificate_of_its_own(tmp_path: Path) -> None:
    certificate, key = certify(tmp_path)
    tls = f"{{certificate: {certificate}, key: {key}}}"
    image = image_layout(tmp_path / "layout")
    with serving(tmp_path / "registry", http=f"tls: {tls}") as registry:
        text = f"docker://{registry.host}/app:1"
        with (
            open_sink(text, access=Access(plain_http=False)) as sink,
            pytest.raises(RegistryError, match=r"self-signed certificate$"),
        ):
            copy(LayoutSource(image.path), sink)
        with open_sink(text, access=Access(plain_http=False, tls_verify=False)) as sink:
            assert copy(LayoutSource(image.path), sink).sent == 5
        with (
            open_sink(text) as sink,
            pytest.raises(RegistryError, match="HTTP 400"),
        ):
            copy(LayoutSource(image.path), sink)


@pytest.mark.parametrize(
    ("first", "rest", "words"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", "no answer came in time"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b" ", "no more data came in time"),
    ],
    ids=["headers", "body"],
)
def test_a_peer_that_drips_behind_tls_is_given_up(
    tmp_path: Path, first: bytes, rest: bytes, words: str
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certify(tmp_path))
    stopped = threading.Event()

    def drip() -> None:
        with suppress(OSError), context.wrap_socket(listener, server_side=True) as server:
            client, _ = server.accept()
            with client:
                client.recv(1 << 16)
                client.sendall(first)
                for _ in range(3000):  # a minute
                    stopped.wait(0.02)
                    client.sendall(rest)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=drip)
        thread.start()
        access = Access(tls_verify=False, timeout=(10.0, 1.0))
        try:
            with (
                Transport(Endpoint(host, verify=False), access) as transport,
                pytest.raises(RegistryUnavailable, match=words),
                transport.request("GET", "/") as answer,
            ):
                answer.read_at_most(9999)
        finally:
            stopped.set()
            thread.join()
