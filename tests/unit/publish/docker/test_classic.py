import gzip
import io
import json
import socketserver
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from ocistow.oci.descriptor import Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.errors import (
    InvalidContent,
    NotFound,
    OcistowError,
    RegistryError,
    RegistryUnavailable,
)
from ocistow.oci.reference import Reference
from ocistow.publish.access import TIMEOUT
from ocistow.publish.copy import Copied, copy
from ocistow.publish.docker.classic import chain_ids
from ocistow.publish.docker.engine import Engine
from ocistow.publish.docker.host import Host
from ocistow.publish.docker.sink import DaemonSink
from ocistow.publish.layout import LayoutSource
from ocistow.publish.sink import Action, Image
from ocistow.testing.images import GeneratedImage, image_layout, index_layout
from ocistow.testing.servers import answering

from ..conftest import IMPATIENT

NAME = "index.docker.io/library/app%3A1"
UNKNOWN = f"sha256:{9:064x}"
LOADED = {"stream": "Loaded image: app:1\n"}


class Daemon:
    """A daemon that remembers requests and archives, and answers what it is told.

    Attributes:
        images: diffIDs of its images by name or identifier.
        identifiers: of those names that are no identifiers themselves.
        answers: what the next loads answer, as messages; LOADED when empty.
        broken: bytes of each archive that ended early.
        stuck: whether it takes no archive before `released` is set.
    """

    def __init__(self, socket: Path) -> None:
        self.host = f"unix://{socket}"
        self.images: dict[str, list[str]] = {}
        self.identifiers: dict[str, str] = {}
        self.answers: list[list[object]] = []
        self.requests: list[str] = []
        self.archives: list[dict[str, bytes]] = []
        self.broken: list[int] = []
        self.stuck = False
        self.released = threading.Event()
        self.api_version = "1.41"
        self.status = 200
        self.raw: bytes | None = None

    def layers_sent(self) -> list[str]:
        return sorted(name for name in self.archives[-1] if name.endswith(".tar"))


def handler(daemon: Daemon) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def setup(self) -> None:
            self.client_address = ("unix", 0)
            super().setup()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            daemon.requests.append(f"{self.command} {path}")
            if daemon.raw is not None:
                self.wfile.write(daemon.raw)
            elif path == "/version":
                self.answer(200, {"Os": "linux", "Arch": "arm64"})
            elif path == "/info":
                self.answer(200, {"DriverStatus": [["Backing Filesystem", "extfs"]]})
            elif path == "/images/json":
                self.answer(200, [{"Id": name} for name in daemon.images])
            elif path == "/images/load":
                self.load()
            elif path.endswith("/tag"):
                self.answer(201, None)
            else:
                name = path.removeprefix("/images/").removesuffix("/json")
                layers = daemon.images.get(name.replace("%3A", ":"))
                found = layers is not None
                identifier = daemon.identifiers.get(name.replace("%3A", ":"), UNKNOWN)
                facts = {"Id": identifier, "RootFS": {"Layers": layers}}
                self.answer(200 if found else 404, facts if found else {"message": "no"})

        do_POST = do_GET

        def load(self) -> None:
            length = int(self.headers["Content-Length"])
            if daemon.stuck:
                daemon.released.wait(60)
            body = self.rfile.read(length)
            if len(body) < length:
                daemon.broken.append(len(body))
                return
            with tarfile.open(fileobj=io.BytesIO(body)) as tar:
                contents = ((info.name, tar.extractfile(info)) for info in tar)
                daemon.archives.append({name: file.read() for name, file in contents if file})
            messages = daemon.answers.pop(0) if daemon.answers else [LOADED]
            self.answer(daemon.status, *messages)

        def answer(self, status: int, *documents: object) -> None:
            self.send_response(status)
            self.send_header("Api-Version", daemon.api_version)
            self.end_headers()
            for document in documents:
                self.wfile.write(json.dumps(document).encode() + b"\r\n")

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path / "socket")
    path = str(tmp_path / "socket")
    with (
        socketserver.ThreadingUnixStreamServer(path, handler(daemon)) as server,
        answering(server),
    ):
        yield daemon


def sink_of(
    daemon: Daemon, name: str = "app:1", timeout: tuple[float, float] = TIMEOUT
) -> DaemonSink:
    return DaemonSink(Engine(Host.parse(daemon.host), timeout), Reference.parse(name))


def publish(image: GeneratedImage, daemon: Daemon, name: str = "app:1") -> Copied:
    return copy(LayoutSource(image.path), sink_of(daemon, name))


def replace_layer(image: GeneratedImage, at: int, content: bytes) -> None:
    """Put another blob into the manifest, whatever the config says."""
    manifest = json.loads(image.blob(image.manifest).read_bytes())
    manifest["layers"][at] |= {"digest": str(Digest.of(content)), "size": len(content)}
    image.blob(Digest.of(content)).write_bytes(content)
    write_manifest(image, manifest)


def write_manifest(image: GeneratedImage, manifest: dict[str, Any]) -> None:
    """Make this the only manifest of the layout."""
    raw = json.dumps(manifest).encode()
    image.blob(Digest.of(raw)).write_bytes(raw)
    entry = {"mediaType": manifest["mediaType"], "digest": str(Digest.of(raw)), "size": len(raw)}
    (image.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))


def texts(digests: tuple[Digest, ...]) -> list[str]:
    return [str(digest) for digest in digests]


def test_a_new_image_is_sent_whole(daemon: Daemon, image: GeneratedImage) -> None:
    copied = publish(image, daemon)
    assert (copied.sent, copied.present) == (5, 0)
    [archive] = daemon.archives
    [entry] = json.loads(archive.pop("manifest.json"))
    assert entry["RepoTags"] == ["index.docker.io/library/app:1"]
    assert entry["Layers"] == [f"{diff_id.encoded}.tar" for diff_id in image.diff_ids]
    assert Digest.of(archive.pop(entry["Config"])) == image.config
    sent = {name: Digest.of(content) for name, content in archive.items()}
    assert sent == dict(zip(entry["Layers"], image.diff_ids, strict=True))


def test_an_image_under_another_name_costs_two_inspects_and_a_tag(
    daemon: Daemon, image: GeneratedImage
) -> None:
    daemon.images[str(image.config)] = texts(image.diff_ids)
    for digest in image.layers:
        image.blob(digest).unlink()
    copied = publish(image, daemon)
    assert (copied.sent, copied.present) == (0, 5)
    name = f"sha256%3A{image.config.encoded}"
    inspected = [f"GET /images/{NAME}/json", f"GET /images/{name}/json"]
    assert daemon.requests == [*inspected, f"POST /images/{name}/tag"]


def test_an_unchanged_image_costs_one_inspect(daemon: Daemon, image: GeneratedImage) -> None:
    name = NAME.replace("%3A", ":")
    daemon.images[name] = texts(image.diff_ids)
    daemon.identifiers[name] = str(image.config)
    for digest in image.layers:
        image.blob(digest).unlink()
    copied = publish(image, daemon)
    assert (copied.sent, copied.present) == (0, 5)
    assert daemon.requests == [f"GET /images/{NAME}/json"]


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_layers_of_a_known_chain_are_left_out(
    daemon: Daemon, image: GeneratedImage, count: int
) -> None:
    daemon.images["sha256:other"] = [*texts(image.diff_ids[:count]), f"sha256:{0:064x}"]
    copied = publish(image, daemon)
    assert copied.present == count
    assert len(daemon.layers_sent()) == 3 - count


def test_a_known_layer_above_an_unknown_one_is_sent(daemon: Daemon, image: GeneratedImage) -> None:
    daemon.images["sha256:other"] = texts(image.diff_ids[1:])
    publish(image, daemon)
    assert len(daemon.layers_sent()) == 3


def test_the_image_that_has_the_name_may_decide_alone(
    daemon: Daemon, image: GeneratedImage
) -> None:
    daemon.images["index.docker.io/library/app:1"] = texts(image.diff_ids)
    publish(image, daemon)
    assert daemon.layers_sent() == []
    assert not any(request.endswith("/images/json") for request in daemon.requests)


def test_a_known_layer_may_be_missing_here(daemon: Daemon, image: GeneratedImage) -> None:
    daemon.images["sha256:other"] = texts(image.diff_ids[:1])
    image.blob(image.layers[0]).unlink()
    assert publish(image, daemon).present == 1
    image.blob(image.layers[1]).unlink()
    with pytest.raises(NotFound, match=str(image.layers[1])):
        publish(image, daemon)
    assert len(daemon.archives) == 1


@pytest.mark.parametrize(
    "words", ["open /tmp/x/l.tar: no such file or directory", 'layer "l" not found']
)
def test_layers_that_vanished_are_sent_with_all_others_once(
    daemon: Daemon, image: GeneratedImage, words: str
) -> None:
    daemon.images["sha256:other"] = texts(image.diff_ids[:2])
    refusal: list[object] = [{"errorDetail": {"message": words}, "error": words}]
    daemon.answers = [refusal]
    publish(image, daemon)
    assert [len(archive) for archive in daemon.archives] == [3, 5]
    daemon.answers = [refusal, refusal]
    with pytest.raises(RegistryError, match=r"not found|no such file"):
        publish(image, daemon)
    assert len(daemon.archives) == 4


def test_a_refusal_with_status_200_is_one(daemon: Daemon, image: GeneratedImage) -> None:
    words = "invalid diffID for layer 0: expected x\ngot y"
    daemon.answers = [[{"status": "Loading"}, {"errorDetail": {}, "error": words}]]
    with pytest.raises(RegistryError) as raised:
        publish(image, daemon)
    assert str(raised.value) == f"docker daemon at {daemon.host}: {' '.join(words.split())}"


@pytest.mark.parametrize("messages", [[], [{"stream": "half"}], [{"status": "Loading layer"}]])
def test_a_load_without_a_result_failed(
    daemon: Daemon, image: GeneratedImage, messages: list[object]
) -> None:
    daemon.answers = [messages]
    with pytest.raises(RegistryUnavailable, match="without a result"):
        publish(image, daemon)


def test_a_refusal_with_another_status_is_one(daemon: Daemon, image: GeneratedImage) -> None:
    daemon.status = 500
    daemon.answers = [[{"message": "no space left on device"}]]
    with pytest.raises(RegistryError, match=r"no space left on device \(HTTP 500\)"):
        publish(image, daemon)


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"", RegistryUnavailable),
        (b"nonsense\r\n\r\n", RegistryUnavailable),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}", RegistryUnavailable),
        (b"HTTP/1.1 200 OK\r\n\r\n{", InvalidContent),
        (b"HTTP/1.1 200 OK\r\n\r\n[]", InvalidContent),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", InvalidContent),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 2000, InvalidContent),
        (b"HTTP/1.1 500 Broken\r\n\r\n", RegistryError),
    ],
)
def test_what_is_no_daemon_gives_one_line(
    daemon: Daemon,
    image: GeneratedImage,
    monkeypatch: pytest.MonkeyPatch,
    raw: bytes,
    error: type[OcistowError],
) -> None:
    monkeypatch.setattr("ocistow.publish.docker.engine.MAX_ANSWER", 1000)
    daemon.raw = raw
    with pytest.raises(error) as raised:
        publish(image, daemon)
    assert "\n" not in str(raised.value)


def test_an_absent_daemon_gives_one_line(tmp_path: Path, image: GeneratedImage) -> None:
    daemon = Daemon(tmp_path / "none")
    with pytest.raises(RegistryUnavailable) as raised:
        publish(image, daemon)
    assert str(raised.value) == f"docker daemon at {daemon.host}: no such file or directory"


def test_zstd_layers_are_refused_before_anything_is_sent(
    daemon: Daemon, image: GeneratedImage
) -> None:
    manifest = image.blob(image.manifest).read_bytes().replace(b"tar+gzip", b"tar+zstd")
    digest = Digest.of(manifest)
    image.blob(digest).write_bytes(manifest)
    index = (image.path / "index.json").read_text()
    (image.path / "index.json").write_text(index.replace(str(image.manifest), str(digest)))
    with pytest.raises(RegistryError, match=r"API version 1\.41 reads no zstd layers"):
        publish(image, daemon)
    assert not daemon.archives
    daemon.api_version = "1.42"
    publish(image, daemon)


def test_of_an_index_the_daemons_platform_is_sent(tmp_path: Path, daemon: Daemon) -> None:
    index = index_layout(tmp_path / "index")
    sink = sink_of(daemon)
    assert copy(LayoutSource(index.path), sink).root.digest == index.images[1].manifest


def test_a_damaged_layer_ends_the_stream(daemon: Daemon, image: GeneratedImage) -> None:
    with image.blob(image.layers[2]).open("ab") as file:
        file.write(b"x")
    with pytest.raises(InvalidContent):
        publish(image, daemon)


def test_a_digest_is_no_name_for_a_daemon(image: GeneratedImage, daemon: Daemon) -> None:
    with pytest.raises(InvalidContent, match="by tag only"):
        publish(image, daemon, f"app@{image.manifest}")


def test_config_and_layers_must_match(daemon: Daemon, image: GeneratedImage) -> None:
    manifest = json.loads(image.blob(image.manifest).read_bytes())
    del manifest["layers"][0]
    raw = json.dumps(manifest).encode()
    image.blob(Digest.of(raw)).write_bytes(raw)
    entry = {"mediaType": manifest["mediaType"], "digest": str(Digest.of(raw)), "size": len(raw)}
    (image.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    with pytest.raises(InvalidContent, match="3 diff_ids"):
        publish(image, daemon)


def test_a_layer_of_several_gzip_members_is_sent_as_it_is(
    daemon: Daemon, image: GeneratedImage
) -> None:
    plain = gzip.decompress(image.blob(image.layers[0]).read_bytes())
    # the second member alone looks like all of it
    packed = gzip.compress(plain[:100]) + gzip.compress(plain[100:])
    replace_layer(image, 0, packed)
    publish(image, daemon)
    [archive] = daemon.archives
    sent = archive[f"{image.diff_ids[0].encoded}.tar"]
    assert sent == packed
    assert len(daemon.broken) == 1


def test_a_layer_that_inflates_twentyfold_is_sent_as_it_is(
    daemon: Daemon, image: GeneratedImage
) -> None:
    packed = gzip.compress(bytes(1 << 20))
    replace_layer(image, 0, packed)
    publish(image, daemon)
    [archive] = daemon.archives
    assert archive[f"{image.diff_ids[0].encoded}.tar"] == packed


def test_over_a_network_layers_are_sent_as_they_are(daemon: Daemon, image: GeneratedImage) -> None:
    with (
        socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler(daemon)) as server,
        answering(server),
    ):
        port = server.server_address[1]
        # leads to loopback, but is none of its addresses
        with Engine(Host.parse(f"tcp://0.0.0.0:{port}"), TIMEOUT) as engine:
            copy(LayoutSource(image.path), DaemonSink(engine, Reference.parse("app:1")))
    [archive] = daemon.archives
    sent = {Digest.of(content) for name, content in archive.items() if name.endswith(".tar")}
    assert sent == set(image.layers)


class Recorder:
    """Hears how far the layers are, and raises KeyboardInterrupt at `end` bytes."""

    def __init__(self, end: int = 1 << 40) -> None:
        self.moved: list[int] = []
        self.end = end

    def begins(self, image: Image) -> None: ...

    def stage(self, what: str) -> None: ...

    def moves(self, descriptor: Descriptor, done: int) -> None:
        if "layer" in descriptor.media_type:
            self.moved.append(done)
            if done > self.end:
                raise KeyboardInterrupt

    def ends(self, descriptor: Descriptor, action: Action) -> None: ...


def test_layers_that_are_inflated_show_progress(tmp_path: Path, daemon: Daemon) -> None:
    image = image_layout(tmp_path / "large", layers=1, layer_size=5 << 20)
    recorder = Recorder()
    copy(LayoutSource(image.path), sink_of(daemon), progress=recorder)
    assert len(recorder.moved) > 5
    assert recorder.moved == sorted(recorder.moved)
    assert recorder.moved[-1] == image.blob(image.layers[0]).stat().st_size


def test_a_copy_that_is_interrupted_ends_the_load(tmp_path: Path, daemon: Daemon) -> None:
    image = image_layout(tmp_path / "large", layers=1, layer_size=5 << 20)
    with pytest.raises(KeyboardInterrupt):
        copy(LayoutSource(image.path), sink_of(daemon), progress=Recorder(2 << 20))
    assert not daemon.archives
    assert "ahead" not in {thread.name for thread in threading.enumerate()}


def test_a_load_that_nobody_takes_ends(tmp_path: Path, daemon: Daemon) -> None:
    image = image_layout(tmp_path / "large", layers=1, layer_size=9 << 20, compression="none")
    daemon.stuck = True
    with pytest.raises(RegistryUnavailable, match=r": no answer came in time$"):
        copy(LayoutSource(image.path), sink_of(daemon, timeout=IMPATIENT))
    daemon.released.set()


def test_only_what_an_image_has_is_lost(daemon: Daemon, tmp_path: Path) -> None:
    plain = image_layout(tmp_path / "plain", compression="none", media="docker")
    assert publish(plain, daemon).losses == ("manifest digest",)
    packed = image_layout(tmp_path / "packed", seed=1)
    packed_losses = ("manifest digest", "media types", "digests of compressed layers")
    assert publish(packed, daemon).losses == packed_losses
    manifest = json.loads(packed.blob(packed.manifest).read_bytes())
    manifest |= {"annotations": {"a": "b"}, "subject": manifest["config"], "artifactType": "x/y"}
    write_manifest(packed, manifest)
    lost = publish(packed, daemon).losses
    assert set(lost) == {*packed_losses, "annotations", "subject", "artifact type"}


def test_layers_that_are_equal_are_sent_once(tmp_path: Path, daemon: Daemon) -> None:
    one = image_layout(tmp_path / "one", layers=2)
    twice = image_layout(tmp_path / "two", layers=2, base=one)
    assert twice.layers == (*one.layers, *one.layers)
    publish(twice, daemon)
    assert len(daemon.layers_sent()) == 2


def test_chain_ids_are_those_of_the_specification() -> None:
    first, second, third = (Digest.of(bytes([number])) for number in range(3))

    def chain(above: Digest, top: Digest) -> Digest:
        return Digest.of(f"{above} {top}".encode())

    expected = [first, chain(first, second), chain(chain(first, second), third)]
    assert chain_ids([first, second, third]) == expected
    assert chain_ids([]) == []
