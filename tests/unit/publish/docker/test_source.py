"""Daemons that send what they should not."""

import io
import json
import socketserver
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from ocistow.oci.digest import Digest
from ocistow.oci.errors import InvalidContent, NotFound, RegistryError, RegistryUnavailable
from ocistow.oci.reference import Reference
from ocistow.publish.access import TIMEOUT
from ocistow.publish.copy import Copied, copy
from ocistow.publish.docker.engine import Engine
from ocistow.publish.docker.host import Host
from ocistow.publish.docker.source import DaemonSource
from ocistow.publish.layout import LayoutSource, StoreSink
from ocistow.publish.recognition import Recognition
from ocistow.store.store import Store
from ocistow.testing.archives import docker_archive
from ocistow.testing.descriptors import open_files
from ocistow.testing.images import GeneratedImage, image_layout
from ocistow.testing.servers import answering

from ..conftest import IMPATIENT

NAME = Reference.parse("example.org/app:1")
LARGE = 200_000  # bytes of a layer, which is then compressed on the way


class Daemon:
    """A daemon with one image, which it saves as it is told.

    Attributes:
        saved: what it sends, in chunks; None for an image that it cannot save.
        ends: whether it ends the last chunk, or breaks the connection off.
        hangs: set when the test is over, for a daemon that sends nothing more until then.
    """

    def __init__(self, socket: Path, image: GeneratedImage, saved: bytes) -> None:
        self.host = f"unix://{socket}"
        self.image = image
        self.saved: bytes | None = saved
        self.ends = True
        self.hangs: threading.Event | None = None
        self.requests: list[str] = []


def handler(daemon: Daemon) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            self.client_address = ("unix", 0)
            super().setup()

        def do_GET(self) -> None:
            daemon.requests.append(self.path)
            if self.path == "/info":
                self.answer(200, {"DriverStatus": None})
            elif self.path.endswith("/json"):
                layers = [str(diff_id) for diff_id in daemon.image.diff_ids]
                identifier = str(daemon.image.config)
                self.answer(200, {"Id": identifier, "RootFS": {"Layers": layers}})
            elif daemon.saved is None:
                self.answer(500, {"message": "no space left on device"})
            else:
                self.save(daemon.saved)

        def answer(self, status: int, document: object) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def save(self, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for at in range(0, len(content), 32 << 10):
                chunk = content[at : at + (32 << 10)]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            if daemon.hangs is not None:
                daemon.hangs.wait(60)
            if daemon.ends:
                self.wfile.write(b"0\r\n\r\n")
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


@pytest.fixture
def image(tmp_path: Path) -> GeneratedImage:
    return image_layout(tmp_path / "layout", layers=3, layer_size=LARGE)


@pytest.fixture
def saved(tmp_path: Path, image: GeneratedImage) -> bytes:
    docker_archive(tmp_path / "saved.tar", {"app:1": image})
    return (tmp_path / "saved.tar").read_bytes()


class Server(socketserver.ThreadingUnixStreamServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients go away."""


@pytest.fixture
def daemon(tmp_path: Path, image: GeneratedImage, saved: bytes) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path / "socket", image, saved)
    with Server(str(tmp_path / "socket"), handler(daemon)) as server, answering(server):
        yield daemon


def take(store: Store, daemon: Daemon, timeout: tuple[float, float] = TIMEOUT) -> Copied:
    with (
        Engine(Host.parse(daemon.host), timeout) as engine,
        DaemonSource(engine, "app:1", Recognition(store)) as source,
    ):
        return copy(source, StoreSink(store, NAME))


def test_a_whole_stream_is_taken(store: Store, daemon: Daemon) -> None:
    assert take(store, daemon).sent == 5


@pytest.mark.parametrize("part", [0.0, 0.01, 0.3, 0.5, 0.7, 0.99])
@pytest.mark.parametrize("ends", [True, False])
def test_a_stream_that_is_cut_off_is_one_error_and_leaves_nothing(
    store: Store, named: Digest, daemon: Daemon, saved: bytes, part: float, ends: bool
) -> None:
    before = set(store.blobs)
    daemon.saved, daemon.ends = saved[: int(len(saved) * part)], ends
    with pytest.raises((InvalidContent, NotFound, RegistryUnavailable), match="docker daemon at"):
        take(store, daemon)
    assert (set(store.blobs), unnamed_files(store)) == (before, [])


def unnamed_files(store: Store) -> list[str]:
    """Return the open files of this process that have no name, in a store."""
    return [path for _, path in open_files() if "(deleted)" in path and str(store.path) in path]


def test_an_error_in_the_middle_of_the_stream_is_no_layer(
    store: Store, named: Digest, daemon: Daemon, saved: bytes
) -> None:
    """How the daemon says that it cannot go on, once it has begun."""
    daemon.saved = saved[:300_000] + b'{"errorDetail":{"message":"disk"},"error":"disk"}\r\n'
    with pytest.raises(InvalidContent, match=r"docker daemon at .*: it ends"):
        take(store, daemon)


def test_what_the_daemon_cannot_save_is_its_own_error(
    store: Store, named: Digest, daemon: Daemon
) -> None:
    daemon.saved = None
    with pytest.raises(RegistryError, match="no space left on device"):
        take(store, daemon)


def test_a_silent_daemon_is_given_up(store: Store, named: Digest, daemon: Daemon) -> None:
    assert daemon.saved is not None
    daemon.saved, daemon.hangs = daemon.saved[:400_000], threading.Event()
    try:
        with pytest.raises(RegistryUnavailable, match="no answer came in time"):
            take(store, daemon, IMPATIENT)
    finally:
        daemon.hangs.set()


def changed(saved: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    """Return an archive with other contents."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(saved)) as old, tarfile.open(fileobj=raw, mode="w") as new:
        for member in old:
            file = old.extractfile(member)
            assert file is not None
            content = change(member.name, file.read())
            member.size = len(content)
            new.addfile(member, io.BytesIO(content))
    return raw.getvalue()


@pytest.mark.parametrize("what", ["layer.tar", "json"])
def test_what_is_not_what_was_announced_is_refused(
    store: Store, named: Digest, daemon: Daemon, saved: bytes, what: str
) -> None:
    def flip(name: str, content: bytes) -> bytes:
        other = content[:-5] + b"X" + content[-4:]
        return other if name.endswith(what) and name != "manifest.json" else content

    daemon.saved = changed(saved, flip)
    with pytest.raises(InvalidContent):
        take(store, daemon)


def test_another_image_than_the_announced_one_is_refused(
    tmp_path: Path, store: Store, named: Digest, daemon: Daemon
) -> None:
    other = image_layout(tmp_path / "other-image", seed=9, layers=2)
    docker_archive(tmp_path / "other.tar", {"app:1": other})
    daemon.saved = (tmp_path / "other.tar").read_bytes()
    with pytest.raises(InvalidContent, match=f"sent {other.config}, not {daemon.image.config}"):
        take(store, daemon)


def test_when_all_layers_are_known_the_stream_is_left_behind_the_config(
    store: Store, daemon: Daemon, saved: bytes
) -> None:
    """The image of the store has the same layers, and another config."""
    config = json.loads(daemon.image.blob(daemon.image.config).read_bytes())
    relabelled = json.dumps({**config, "author": "me"}).encode()
    new = Digest.of(relabelled)
    old = daemon.image.config
    copy(LayoutSource(daemon.image.path), StoreSink(store, NAME))
    layers = daemon.image.layers
    daemon.image = GeneratedImage(
        daemon.image.path, daemon.image.manifest, new, layers, daemon.image.diff_ids
    )
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, content in (
            ("0/layer.tar", b"never looked at"),
            (f"{old.encoded}.json", b"{}"),
            (f"{new.encoded}.json", relabelled),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    daemon.saved, daemon.hangs = raw.getvalue().ljust(2 << 20, b"\xff"), threading.Event()
    try:
        copied = take(store, daemon)
    finally:
        daemon.hangs.set()
    assert (copied.sent, copied.present) == (2, 3)
    daemon.requests.clear()
    assert take(store, daemon).sent == 0
    assert daemon.requests == ["/images/app%3A1/json"]


@pytest.mark.parametrize("wrong", ["content", "layers"])
def test_a_config_that_is_not_the_announced_one_is_refused(
    store: Store, daemon: Daemon, wrong: str
) -> None:
    """Neither when all layers are known, and nothing but the config is read."""
    copy(LayoutSource(daemon.image.path), StoreSink(store, NAME))
    config = json.loads(daemon.image.blob(daemon.image.config).read_bytes())
    relabelled = json.dumps({**config, "author": "me"}).encode()
    if wrong == "layers":
        config["rootfs"]["diff_ids"].reverse()
        relabelled = json.dumps(config).encode()
    daemon.image = replace(daemon.image, config=Digest.of(relabelled))
    content = relabelled + b" " * (wrong == "content")
    info = tarfile.TarInfo(f"{Digest.of(relabelled).encoded}.json")
    info.size = len(content)
    daemon.saved = info.tobuf() + content.ljust(4096, b"\0")
    expected = "expected" if wrong == "content" else "names other layers"
    with pytest.raises(InvalidContent, match=expected):
        take(store, daemon)
