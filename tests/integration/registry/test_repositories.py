"""What the real registry does about mounts, broken uploads and lists of referrers."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path

import pytest

from ocistow.oci.descriptor import OCI_INDEX, OCI_MANIFEST, Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.manifest import Index
from ocistow.oci.reference import Reference
from ocistow.publish.access import Access
from ocistow.publish.copy import Copied, copy
from ocistow.publish.distribution import upload
from ocistow.publish.distribution.hosts import open_repository
from ocistow.publish.distribution.repository import Repository
from ocistow.publish.layout import LayoutSource, StoreSink, StoreSource
from ocistow.publish.referrer import fallback_tag
from ocistow.publish.referrers import publish_referrers, take_referrers
from ocistow.publish.source import Blob
from ocistow.publish.transports import open_sink, open_source
from ocistow.store.store import Store
from ocistow.testing.images import image_layout, index_layout

from ..conftest import DockerRegistry, program

pytestmark = [pytest.mark.registry, pytest.mark.tools]

NAME = Reference.parse("example.com/app:1")
MIB = 1 << 20


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "store") as store:
        yield store


def push(path: Path, text: str, store: Store) -> Copied:
    with open_sink(text, store) as sink:
        return copy(LayoutSource(path), sink)


def skopeo(*arguments: str) -> bytes:
    return subprocess.run([program("skopeo"), *arguments], check=True, capture_output=True).stdout


def assert_same(text: str, layout: Path, digest: Digest, out: Path) -> None:
    """Have skopeo fetch an image, and compare every blob of it."""
    skopeo("copy", "--all", "--src-tls-verify=false", text, f"oci:{out}")
    blobs = list((out / "blobs" / "sha256").iterdir())
    assert digest.encoded in {blob.name for blob in blobs}
    for blob in blobs:
        assert blob.read_bytes() == (layout / "blobs" / "sha256" / blob.name).read_bytes()


def test_layers_are_mounted_between_repositories(
    tmp_path: Path, docker_registry: DockerRegistry, store: Store
) -> None:
    text = f"docker://{docker_registry.host}/mounts"
    base = image_layout(tmp_path / "base", seed=20, layers=4)
    skopeo("copy", "--dest-tls-verify=false", f"oci:{base.path}:latest", f"{text}/base:1")
    with open_source(f"{text}/base:1", store) as source:
        copy(source, StoreSink(store, NAME))
    app = image_layout(tmp_path / "app", seed=21, layers=1, base=base)
    copied = push(app.path, f"{text}/app:1", store)
    assert (copied.mounted, copied.sent) == (4, 3)
    assert_same(f"{text}/app:1", app.path, app.manifest, tmp_path / "out")
    retagged = push(app.path, f"{text}/app:2", store)
    assert (retagged.sent, retagged.present) == (0, 7)
    assert_same(f"{text}/app:2", app.path, app.manifest, tmp_path / "again")


def test_one_image_of_an_index_changes(
    tmp_path: Path, docker_registry: DockerRegistry, store: Store
) -> None:
    text = f"docker://{docker_registry.host}/indexes:1"
    index = index_layout(tmp_path / "one", seed=22, layers=3)
    push(index.path, text, store)
    platforms = [("linux", "amd64"), ("linux", "arm64", "v8"), ("linux", "riscv64")]
    more = index_layout(tmp_path / "two", seed=22, layers=3, platforms=platforms)
    copied = push(more.path, text, store)
    assert copied.sent == 2 + 1 + 1 + 1  # its own layers, config, manifest; the index
    assert_same(text, more.path, more.index, tmp_path / "out")


class Content:
    """A source of some bytes whose first reader dies at one of them."""

    sparse = False

    def __init__(self, raw: bytes, dies_at: int) -> None:
        self._raw = raw
        self._dies_at = dies_at

    def resolve(self) -> Descriptor:
        raise AssertionError

    def open(self, descriptor: Descriptor) -> Blob:
        blob = Blob(BytesIO(self._raw), descriptor)
        dies_at, self._dies_at = self._dies_at, len(self._raw) + 1

        def watch(done: int) -> None:
            if done > dies_at:
                raise KeyboardInterrupt

        blob.watch = watch
        return blob


class Kept:
    """Sessions in memory."""

    def __init__(self) -> None:
        self.urls: dict[Digest, str] = {}

    def note(self, digest: Digest, url: str) -> None:
        self.urls[digest] = url

    def take(self, digest: Digest) -> str | None:
        return self.urls.get(digest)

    def leave(self, digest: Digest) -> None: ...

    def forget(self, digest: Digest) -> None:
        del self.urls[digest]


@pytest.mark.parametrize(
    ("name", "dies_at", "sessions"),
    [("between", 2 * MIB, 1), ("within", 4 * MIB, 2)],
)
def test_an_interrupted_upload_goes_on_where_the_registry_lets_it(
    docker_registry: DockerRegistry,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    dies_at: int,
    sessions: int,
) -> None:
    """Distribution 2.8 forgets a session when bytes came for which it had no answer."""
    monkeypatch.setattr(upload, "LARGE", 5 * MIB)
    monkeypatch.setattr(upload, "CHUNK", 2 * MIB)
    raw = name.encode() * MIB
    descriptor = Descriptor("application/octet-stream", Digest.of(raw), len(raw))
    kept, source = Kept(), Content(raw, dies_at)
    with open_at(docker_registry, name) as repository:
        with pytest.raises(KeyboardInterrupt):
            repository.upload(descriptor, source, sessions=kept)
        assert kept.urls
        repository.upload(descriptor, source, sessions=kept)
        assert repository.has_blob(descriptor.digest)
    assert kept.urls == {}
    docker_registry.log.wait_for(f"method=HEAD .*/v2/{name}/blobs/{descriptor.digest}.*status=200")
    begun = docker_registry.log.find(f"method=POST .*/v2/{name}/blobs/uploads/.*status=202")
    assert len(begun) == sessions


def open_at(registry: DockerRegistry, name: str) -> AbstractContextManager[Repository]:
    reference = Reference.parse(f"{registry.host}/{name}")
    return open_repository(reference, Access(), push=True)


def attach(repository: Repository, subject: Digest, words: str) -> Descriptor:
    """Push an artifact that refers to a manifest."""
    layer, empty = words.encode(), b"{}"
    config = Descriptor("application/vnd.oci.empty.v1+json", Digest.of(empty), len(empty))
    blob = Descriptor("text/plain", Digest.of(layer), len(layer))
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/vnd.example.signature",
        "config": config.to_document(),
        "layers": [blob.to_document()],
        "subject": Descriptor(OCI_MANIFEST, subject, 1).to_document(),
    }
    raw = json.dumps(document).encode()
    repository.upload(config, Content(empty, 99))
    repository.upload(blob, Content(layer, 99))
    descriptor = Descriptor(OCI_MANIFEST, Digest.of(raw), len(raw))
    repository.put_manifest(descriptor.digest, descriptor, raw)
    return descriptor


def test_referrers_go_under_the_tag_of_a_list(
    tmp_path: Path, docker_registry: DockerRegistry, store: Store
) -> None:
    host = docker_registry.host
    image = image_layout(tmp_path / "image", seed=23, layers=1)
    push(image.path, f"docker://{host}/signed:1", store)
    tag = fallback_tag(image.manifest)
    with open_at(docker_registry, "signed") as repository:
        signature = attach(repository, image.manifest, "signature")
        write_list(repository, tag, [signature])
        with open_source(f"docker://{host}/signed:1", store) as source:
            root = copy(source, StoreSink(store, NAME)).root
        take_referrers(Reference.parse(f"{host}/signed"), store, NAME, root)
        bill = attach(repository, image.manifest, "bill")
        write_list(repository, tag, [bill])  # by somebody who forgot the signature
    with open_sink(f"docker://{host}/signed:1", store) as sink:
        copy(StoreSource(store.layout(NAME.path)), sink)
    done = publish_referrers(store, NAME, root, Reference.parse(f"{host}/signed"))
    assert done.listed == (tag,)
    listing = json.loads(
        skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{host}/signed:{tag}")
    )
    assert {entry["digest"] for entry in listing["manifests"]} == {
        str(signature.digest),
        str(bill.digest),
    }
    where = f"docker://{host}/moved"
    push(image.path, f"{where}:1", store)
    publish_referrers(store, NAME, root, Reference.parse(f"{host}/moved"))
    raw = skopeo("inspect", "--raw", "--tls-verify=false", f"{where}@{signature.digest}")
    assert Digest.of(raw) == signature.digest
    [entry] = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"{where}:{tag}"))[
        "manifests"
    ]
    assert entry["artifactType"] == "application/vnd.example.signature"


def write_list(repository: Repository, tag: str, entries: list[Descriptor]) -> None:
    raw = Index.of(entries).raw
    repository.put_manifest(tag, Descriptor(OCI_INDEX, Digest.of(raw), len(raw)), raw)
