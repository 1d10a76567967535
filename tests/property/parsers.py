"""Every parser of bytes from outside, with what it accepts and how it refuses.

A new parser is a new line of `PARSERS`.
"""

import contextlib
import io
import os
import socket
import tarfile
import tempfile
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path, PurePosixPath

import zstandard

from ocistow.audit import history
from ocistow.audit.daemon import account
from ocistow.audit.layers import layers
from ocistow.cli.config import Flags
from ocistow.cli.config import settings as settings_of
from ocistow.lifecycle.buildpacks.buildpack import Builder
from ocistow.lifecycle.files.analyzed import Analyzed
from ocistow.lifecycle.files.artifacts import declarations
from ocistow.lifecycle.files.document import parse_toml
from ocistow.lifecycle.files.group import Group, GroupElement, Order, System
from ocistow.lifecycle.files.labels import CacheMetadata, LifecycleMetadata, mixins
from ocistow.lifecycle.files.launch import read_build_result, read_launch
from ocistow.lifecycle.files.metadata import BuildMetadata
from ocistow.lifecycle.files.plan import Plan, read_build_plan
from ocistow.lifecycle.files.project import ProjectMetadata
from ocistow.lifecycle.files.report import Report
from ocistow.lifecycle.golang import toml as gotoml
from ocistow.lifecycle.images.config import Config
from ocistow.lifecycle.layers.directories import read_layer_metadata
from ocistow.lifecycle.layers.extract import extract
from ocistow.lifecycle.platform_api import Version
from ocistow.oci.descriptor import OCI_INDEX, OCI_MANIFEST, Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.document import Object, parse_object
from ocistow.oci.errors import InvalidContent, NotFound, PhaseFailed, RegistryError
from ocistow.oci.manifest import ImageConfig, Index, media_type_of, parse_manifest
from ocistow.oci.pattern import Pattern
from ocistow.oci.platform import Platform
from ocistow.oci.reference import Reference
from ocistow.publish.access import Access
from ocistow.publish.archives.archive import ArchiveFile
from ocistow.publish.archives.either import any_archive
from ocistow.publish.compression import inflated
from ocistow.publish.distribution.challenge import parse_challenges
from ocistow.publish.distribution.credentials import AuthFile, of_header, parse_headers
from ocistow.publish.distribution.endpoint import Endpoint
from ocistow.publish.distribution.realm import Realm
from ocistow.publish.distribution.registries import Registries
from ocistow.publish.distribution.repository import Repository
from ocistow.publish.distribution.tokens import Scopes, fetch
from ocistow.publish.distribution.transport import Transport
from ocistow.publish.docker.engine import Engine
from ocistow.publish.docker.host import Host, find_host
from ocistow.publish.recognition import Recognition
from ocistow.store.annotations import annotated
from ocistow.store.collection.catalog import Catalog
from ocistow.store.collection.roots import mentioned_by
from ocistow.store.leases import Leases
from ocistow.store.remotes import RepositoryName
from ocistow.store.sharing.journal import Entry, entries
from ocistow.store.store import Store
from ocistow.testing.disk import QuickDisk
from ocistow.testing.mutations import Form, dumped

from .documents import (
    BUILDPACK_METADATA,
    CONFIG,
    DAEMON_IMAGE,
    DIGEST,
    ELEMENT,
    IMAGE,
    JOURNAL_ENTRY,
    MANIFEST,
    MANIFEST_DESCRIPTOR,
    OF_CONFIG,
    OF_INDEX,
    OF_LABEL,
    OF_MANIFEST,
    OF_REMOTES,
    OF_ROOT,
    REQUIRE,
    RUN,
    H,
)


@dataclass(frozen=True)
class Parser:
    """What reads bytes.

    Attributes:
        sample: what it accepts: a document, or the bytes themselves.
        refusals: the documented errors.
        limit: bytes, of which more are not read; 0 stands for what all documents of its form have.
        first: whether each run tries its worst documents, since other parsers are built on it.
    """

    parse: Callable[[bytes], object]
    sample: object
    form: Form = "json"
    refusals: tuple[type[Exception], ...] = (InvalidContent,)
    limit: int = 0
    first: bool = False


@cache
def scratch() -> Path:
    memory = Path("/dev/shm")
    directory = tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
    LIVE.append(directory)
    return Path(directory.name)


LIVE: list[object] = []  # what lasts as long as the tests


@cache
def store() -> Store:
    made = Store.create(scratch() / "store", QuickDisk())
    IMAGE.add_to(made.blobs)
    made.put(Reference.parse("e.x/a:1"), IMAGE.root)
    return made


def file_with(raw: bytes, name: str) -> Path:
    path = scratch() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)
    return path


def from_toml(read: Callable[[Object, str], object], raw: bytes) -> object:
    return read(parse_toml(raw, "it"), "it")


def round_trip(raw: bytes) -> object:
    """Read TOML, and write it."""
    return gotoml.encode(parse_toml(raw, "it"))


def manifest(raw: bytes) -> object:
    return parse_manifest(raw, Descriptor(OCI_MANIFEST, Digest.of(raw), len(raw)))


def needed(raw: bytes) -> object:
    """Look at an index as gc does, twice: the quick reading never misses what the other finds."""
    layout = store().layout(PurePosixPath("e.x/a/1"))
    with contextlib.suppress(InvalidContent):
        careful = mentioned_by(layout, raw)
        catalog = Catalog(store())
        quick = set(catalog.digests(catalog.reach("e.x/a/1", raw)).values())
        assert quick >= {*careful.layers, *careful.others}
    return Catalog(store()).reach("e.x/a/1", raw)


def needed_by_manifest(raw: bytes) -> object:
    digest = store().blobs.add([raw])
    try:
        return needed(Index.of([Descriptor(OCI_MANIFEST, digest, len(raw))]).raw)
    finally:
        if raw not in IMAGE.blobs.values():
            store().blobs.delete(digest)


def mark(raw: bytes) -> None:
    store().layout(PurePosixPath("e.x/a/1")).mark(raw)


def from_path(text: str) -> object:
    return Reference.from_path(PurePosixPath(text))


def remotes(raw: bytes) -> object:
    path = file_with(raw, "store/remotes.json")
    store()
    try:
        return store().remotes.list(), store().remotes.places(Digest("sha256", H))
    finally:
        path.unlink()


def runs(raw: bytes) -> object:
    store()
    path = file_with(raw, f"store/{history.FILE}")
    try:
        return history.runs(store())
    finally:
        path.unlink()


def version_file(raw: bytes) -> object:
    (scratch() / "other" / "blobs").mkdir(parents=True, exist_ok=True)
    (scratch() / "other" / "layouts").mkdir(exist_ok=True)
    file_with(raw, "other/ocistow.json")
    with Store.open(scratch() / "other"):
        return None


def journal(raw: bytes) -> object:
    return list(entries(file_with(b'{"type": "dedupe", "version": 1}\n' + raw, "j.jsonl")))


def lease(raw: bytes) -> object:
    file_with(raw, "leases/owner")
    return list(Leases(scratch() / "leases").held())


def settings_file(raw: bytes) -> object:
    return settings_of(Flags(config=file_with(raw, "config.toml")), {"HOME": "/x"}, root=False)


def registries(raw: bytes) -> object:
    path = file_with(raw, "registries.conf")
    return Registries.read({"CONTAINERS_REGISTRIES_CONF": str(path)}, scratch() / "none")


def docker_config(raw: bytes) -> object:
    file_with(raw, "docker/config.json")
    return find_host(Access(), {"DOCKER_CONFIG": str(scratch() / "docker"), "HOME": "/x"})


def auth_file(raw: bytes) -> object:
    return AuthFile.parse(raw, "it").find("e.x", "a/b")


def buildpack(raw: bytes) -> object:
    file_with(raw, "buildpacks/a_b/1/buildpack.toml")
    return Builder(scratch() / "buildpacks", scratch()).find(GroupElement("a/b", "1"))


def created_by(raw: bytes) -> object:
    """Read an image config's history as du does."""
    config = store().blobs.add([raw])
    document: dict[str, object] = {**OF_MANIFEST, "layers": list[object]()}
    document["config"] = {**MANIFEST_DESCRIPTOR, "digest": str(config), "size": len(raw)}
    text = dumped(document, "json")
    root = Descriptor(OCI_MANIFEST, store().blobs.add([text]), len(text))
    with contextlib.suppress(InvalidContent):
        store().put(Reference.parse("e.x/a:2"), root)
    return layers(store())


def archive(name: str, raw: bytes) -> object:
    """Read a `manifest.json` or the like of an archive."""
    members = {name: raw, f"{H}.json": CONFIG, "a/layer.tar": b""}
    return whole_archive(tar_of(members))


def whole_archive(raw: bytes) -> object:
    with file_with(raw, "archive.tar").open("rb") as file:
        members = ArchiveFile.of(file.fileno(), "it", links=True)
        with any_archive(members, Recognition(store()), None) as source:
            return source.resolve()


def tar_of(members: dict[str, bytes], format_: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format_) as made:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    return file.getvalue()


def layer_tar(raw: bytes) -> None:
    target = scratch() / "layers"
    target.mkdir(exist_ok=True)
    extract(io.BytesIO(raw), target)


def inflate(raw: bytes) -> object:
    stream = inflated(io.BytesIO(raw))
    size = 0
    while data := stream.read(1 << 20):
        size += len(data)
        assert len(data) <= 1 << 20
    return size


ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}"
NEXT_ANSWER = [b""]


@cache
def peer() -> str:
    """Start a server that gives `NEXT_ANSWER` to whoever asks, and then hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    return f"127.0.0.1:{listener.getsockname()[1]}"


def serve(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(4096) or b"\r\n\r\n"
            connection.sendall(NEXT_ANSWER[0])
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass


def http(body: bytes, *headers: str) -> None:
    length = f"Content-Length: {len(body)}"
    head = "\r\n".join(["HTTP/1.1 200 OK", length, "Connection: close", *headers])
    NEXT_ANSWER[0] = head.encode() + b"\r\n\r\n" + body


def daemon(ask: Callable[[Engine], object], body: bytes, *headers: str) -> object:
    http(body, *headers)
    with Engine(Host.parse(f"tcp://{peer()}"), Access().timeout) as engine:
        return ask(engine)


def registry(ask: Callable[[Repository], object], body: bytes, *headers: str) -> object:
    http(body, *headers)
    return raw_registry(ask, NEXT_ANSWER[0])


def raw_registry(ask: Callable[[Repository], object], raw: bytes) -> object:
    NEXT_ANSWER[0] = raw
    endpoint = Endpoint(peer(), plain_http=True)
    with Transport(endpoint, Access(), wait_no_longer) as transport:
        return ask(Repository(transport, "a"))


class Waits(RegistryError):
    """Somebody would wait, to try again."""


def wait_no_longer(_: float) -> None:
    raise Waits("it", 0)


def raw_daemon(raw: bytes) -> object:
    NEXT_ANSWER[0] = raw
    with Engine(Host.parse(f"tcp://{peer()}"), Access().timeout) as engine:
        return engine.image("a")


def token(raw: bytes) -> object:
    http(raw, "Content-Type: application/json")
    endpoint = Endpoint(peer(), plain_http=True)
    with Transport(endpoint, Access(), wait_no_longer) as transport:
        return fetch(transport, Realm.parse(f"http://{peer()}/t"), "s", Scopes.parse([]), None)


def text(read: Callable[[str], object]) -> Callable[[bytes], object]:
    """Return what reads bytes as the operating system's arguments, which are any."""
    return lambda raw: read(os.fsdecode(raw))


NET = (InvalidContent, RegistryError)
ABSENT = (InvalidContent, NotFound)
SHORT = 16 << 10  # bytes; of an argument
HEADERS = 64 << 10  # bytes; http.client takes no longer lines
PARSERS = {
    "object": Parser(lambda raw: parse_object(raw, "it"), {"a": [{"b": 1.5}]}, first=True),
    "index": Parser(Index.parse, OF_INDEX),
    "manifest": Parser(manifest, OF_MANIFEST),
    "media type": Parser(media_type_of, OF_MANIFEST),
    "config": Parser(ImageConfig.parse, OF_CONFIG),
    "whole config": Parser(Config.parse, OF_CONFIG),
    "annotations": Parser(lambda raw: annotated(raw, {"c": "d"}, "it"), OF_MANIFEST),
    "marker": Parser(mark, {"imageLayoutVersion": "1.0.0"}),
    "what an index needs": Parser(needed, OF_ROOT),
    "what a manifest needs": Parser(needed_by_manifest, parse_object(MANIFEST, "it")),
    "what made a layer": Parser(created_by, OF_CONFIG),
    "store version": Parser(version_file, {"version": 1}, limit=4096),
    "remotes": Parser(remotes, OF_REMOTES),
    "runs of du": Parser(runs, RUN),
    "line of a journal": Parser(Entry.parse, JOURNAL_ENTRY, limit=64 << 10),
    "journal": Parser(journal, JOURNAL_ENTRY),
    "introduction of a lease": Parser(lease, {"pid": 1, "host": "a", "program": "b"}),
    "leases": Parser(lease, f"9999999999.000 {DIGEST}\n".encode(), "bytes"),
    "lifecycle label": Parser(LifecycleMetadata.parse, OF_LABEL),
    "cache label": Parser(CacheMetadata.parse, OF_LABEL),
    "mixins": Parser(mixins, b'["a", "b"]', "bytes"),
    "docker archive": Parser(
        partial(archive, "manifest.json"),
        [{"Config": f"{H}.json", "RepoTags": ["e.x/a:1"], "Layers": ["a/layer.tar"]}],
        refusals=ABSENT,
    ),
    "index of an archive": Parser(partial(archive, "index.json"), OF_INDEX, refusals=ABSENT),
    "config of docker": Parser(docker_config, {"currentContext": "default"}, refusals=ABSENT),
    "credentials": Parser(
        auth_file, {"auths": {"e.x": {"auth": "YTpi"}}, "credHelpers": {"e.x": "a"}}
    ),
    "CNB_REGISTRY_AUTH": Parser(
        lambda raw: [of_header(v, "it") for v in parse_headers(raw, "it").values()],
        {"e.x": "Basic YTpi"},
    ),
    "settings": Parser(
        settings_file, {"store": "~/a", "jobs": 2, "checksums": True}, "toml", limit=64 << 10
    ),
    "registries.conf": Parser(
        registries,
        {"registry": [{"location": "e.x", "insecure": True, "mirror": [{"location": "f.x"}]}]},
        "toml",
        limit=1 << 20,
    ),
    "toml": Parser(lambda raw: parse_toml(raw, "it"), {"a": [{"b": 1.5}]}, "toml", first=True),
    "written toml": Parser(round_trip, {"a": [{"b": 1.5}]}, "toml"),
    "analyzed.toml": Parser(
        partial(from_toml, Analyzed.from_document),
        {
            "image": {"reference": "a"},
            "run-image": {"reference": "b", "target": {"os": "linux"}},
            "metadata": {},
        },
        "toml",
    ),
    "group.toml": Parser(partial(from_toml, Group.from_document), {"group": [ELEMENT]}, "toml"),
    "order.toml": Parser(
        partial(from_toml, Order.from_document),
        {"order": [{"group": [ELEMENT]}]},
        "toml",
    ),
    "system.toml": Parser(
        partial(from_toml, System.from_document),
        {"system": {"pre": {"buildpacks": [ELEMENT]}}},
        "toml",
    ),
    "artifacts.toml": Parser(
        partial(from_toml, declarations),
        {"artifact": [{"tag": "a", "file": "b", "labels": [{"a": "b"}]}]},
        "toml",
    ),
    "metadata.toml": Parser(
        partial(from_toml, BuildMetadata.from_document),
        BUILDPACK_METADATA,
        "toml",
    ),
    "plan.toml": Parser(
        partial(from_toml, Plan.from_document),
        {"entries": [{"providers": [ELEMENT], "requires": [{"name": "a", "metadata": {"a": 1}}]}]},
        "toml",
    ),
    "build plan": Parser(
        lambda raw: read_build_plan(file_with(raw, "plan.toml")),
        {
            "provides": [{"name": "a"}],
            "requires": [{"name": "a"}],
            "or": [{"provides": [REQUIRE]}],
        },
        "toml",
    ),
    "project-metadata.toml": Parser(
        partial(from_toml, ProjectMetadata.from_document),
        {"source": {"type": "git", "version": {"commit": "a"}, "metadata": {"a": "b"}}},
        "toml",
    ),
    "report.toml": Parser(
        partial(from_toml, Report.from_document),
        {
            "image": {"tags": ["a"], "digest": DIGEST, "manifest-size": 1},
            "build": {"bom": [{"name": "a"}]},
        },
        "toml",
    ),
    "launch.toml": Parser(
        lambda raw: read_launch(file_with(raw, "launch.toml"), "a", Version(0, 10)),
        {"processes": [{"type": "a", "command": ["b"], "default": True}], "labels": [{"key": "a"}]},
        "toml",
    ),
    "build.toml": Parser(
        lambda raw: read_build_result(file_with(raw, "build.toml")),
        {"unmet": [{"name": "a"}]},
        "toml",
    ),
    "layer.toml": Parser(
        lambda raw: read_layer_metadata(file_with(raw, "layer.toml")),
        {"types": {"launch": True}, "metadata": {"a": 1}},
        "toml",
    ),
    "buildpack.toml": Parser(
        buildpack,
        {
            "api": "0.10",
            "buildpack": {"homepage": "a"},
            "targets": [{"os": "linux", "distros": [{"name": "a"}]}],
        },
        "toml",
        refusals=(InvalidContent, PhaseFailed),
    ),
    "digest": Parser(text(Digest.parse), DIGEST.encode(), "bytes", limit=SHORT),
    "reference": Parser(
        text(Reference.parse), b"e.x:5000/a/b:c@" + DIGEST.encode(), "bytes", limit=SHORT
    ),
    "repository": Parser(text(RepositoryName.parse), b"e.x:5000/a/b", "bytes", limit=SHORT),
    "path": Parser(
        lambda raw: Reference.from_path(PurePosixPath(os.fsdecode(raw))),
        b"e.x/a/b",
        "bytes",
        limit=SHORT,
    ),
    "pattern": Parser(
        lambda raw: [p.elements for p in Pattern.parse(os.fsdecode(raw))],
        b"e.x/a*:[ab]?",
        "bytes",
        limit=SHORT,
    ),
    "platform": Parser(text(Platform.parse), b"linux/arm64/v8", "bytes", limit=SHORT),
    "version": Parser(text(Version.parse), b"0.12", "bytes", limit=SHORT),
    "host": Parser(text(Host.parse), b"tcp://127.0.0.1:2375", "bytes", limit=SHORT),
    "challenge": Parser(
        lambda raw: parse_challenges([raw.decode("latin-1")]),
        b'Bearer realm="https://a/b?c",service="d", Basic realm=e',
        "bytes",
        limit=HEADERS,
    ),
    "realm": Parser(
        lambda raw: Realm.parse(raw.decode("latin-1")), b"https://a.b:1/c?d", "bytes", limit=HEADERS
    ),
    "tar": Parser(
        whole_archive,
        tar_of(
            {"index.json": Index.of([IMAGE.root]).raw, "oci-layout": b"{}", "a" * 200: b"b" * 600}
        ),
        "bytes",
        refusals=ABSENT,
    ),
    "layer": Parser(
        layer_tar,
        tar_of({f"{scratch()}/layers/a": b"b"}),
        "bytes",
        refusals=(InvalidContent, OSError),
    ),
    "gzip": Parser(inflate, zlib.compress(b"a" * 1000, wbits=31), "bytes"),
    "zstd": Parser(inflate, zstandard.compress(b"a" * 1000), "bytes"),
    "image of a daemon": Parser(
        lambda raw: daemon(lambda engine: engine.image("a"), raw),
        {"Id": DIGEST, "RootFS": {"Layers": [DIGEST]}, "RepoTags": ["a:1"]},
        refusals=NET,
    ),
    "images of a daemon": Parser(
        lambda raw: daemon(lambda engine: engine.images(), raw), [{"Id": DIGEST}], refusals=NET
    ),
    "manifests of a daemon": Parser(
        lambda raw: daemon(lambda engine: engine.complete("a"), raw),
        [{"Id": DIGEST, "Manifests": [{"ID": DIGEST, "Available": True}]}],
        refusals=NET,
    ),
    "costs of a daemon": Parser(
        lambda raw: daemon(account, raw), {"LayersSize": 1, "Images": [DAEMON_IMAGE]}, refusals=NET
    ),
    "answer of a daemon": Parser(
        raw_daemon,
        ANSWER.replace(b"Content-Type", b"Api-Version: 1.45\r\nContent-Type"),
        "bytes",
        refusals=NET,
        limit=HEADERS,
    ),
    "token": Parser(token, {"token": "a", "expires_in": 300, "refresh_token": "b"}, refusals=NET),
    "manifest of a registry": Parser(
        lambda raw: registry(lambda r: r.manifest("a"), raw, f"Content-Type: {OCI_MANIFEST}"),
        OF_MANIFEST,
        refusals=(*NET, NotFound),
    ),
    "referrers": Parser(
        lambda raw: registry(
            lambda r: r.referrers(Digest("sha256", H), 10), raw, f"Content-Type: {OCI_INDEX}"
        ),
        OF_INDEX,
        refusals=NET,
    ),
    "refusal of a registry": Parser(
        lambda raw: raw_registry(
            lambda r: r.manifest("a"),
            b"HTTP/1.1 403 No\r\nContent-Length: %d\r\n\r\n%b" % (len(raw), raw),
        ),
        {"errors": [{"code": "DENIED", "message": "a", "detail": "b"}]},
        refusals=(*NET, NotFound),
    ),
    "answer of a registry": Parser(
        partial(raw_registry, lambda r: r.size_of_blob(Digest("sha256", H))),
        ANSWER.replace(b"200 OK", b"429 No\r\nRetry-After: Fri, 31 Dec 1999 23:59:59 GMT"),
        "bytes",
        refusals=NET,
        limit=HEADERS,
    ),
}
REFUSED = {  # though they are what they should be: of other images, say
    "answer of a daemon",
    "answer of a registry",
    "docker archive",
    "index of an archive",
    "refusal of a registry",
}
