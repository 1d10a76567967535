"""Signatures and other artifacts come and go with the image that they refer to."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path

import pytest

from ocistow.oci.descriptor import OCI_INDEX, OCI_MANIFEST, Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.errors import InvalidContent, RegistryError
from ocistow.oci.manifest import Index
from ocistow.oci.reference import Reference
from ocistow.publish import referrer, referrers
from ocistow.publish.access import Access
from ocistow.publish.copy import copy
from ocistow.publish.distribution.hosts import open_repository
from ocistow.publish.distribution.repository import Repository
from ocistow.publish.layout import LayoutSource, StoreSink, StoreSource
from ocistow.publish.referrer import fallback_tag
from ocistow.publish.referrers import Referrers, publish_referrers, take_referrers
from ocistow.publish.registry import RegistrySource
from ocistow.publish.source import Blob, read_document
from ocistow.publish.transports import open_sink
from ocistow.store.store import Store
from ocistow.testing.faults import Fault, Status
from ocistow.testing.images import GeneratedImage, index_layout
from ocistow.testing.registry import Registry

from .conftest import NAME

EMPTY = Descriptor("application/vnd.oci.empty.v1+json", Digest.of(b"{}"), 2)

Attach = Callable[..., Descriptor]


class Bytes:
    """A source of one blob."""

    sparse = False

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def resolve(self) -> Descriptor:
        raise AssertionError

    def open(self, descriptor: Descriptor) -> Blob:
        return Blob(BytesIO(self._raw), descriptor)


def artifact(subject: Digest, words: str) -> bytes:
    layer = words.encode()
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/vnd.example.signature",
        "config": EMPTY.to_document(),
        "layers": [Descriptor("text/plain", Digest.of(layer), len(layer)).to_document()],
        "subject": Descriptor(OCI_MANIFEST, subject, 1).to_document(),
        "annotations": {"words": words},
    }
    return json.dumps(document).encode()


@pytest.fixture
def attach(repository: Repository) -> Attach:
    """Push an artifact that refers to a manifest."""

    def attach(subject: Digest, words: str) -> Descriptor:
        raw = artifact(subject, words)
        layer = words.encode()
        repository.upload(EMPTY, Bytes(b"{}"))
        blob = Descriptor("text/plain", Digest.of(layer), len(layer))
        repository.upload(blob, Bytes(layer))
        descriptor = Descriptor(OCI_MANIFEST, Digest.of(raw), len(raw))
        repository.put_manifest(descriptor.digest, descriptor, raw)
        return descriptor

    return attach


@pytest.fixture(params=[True, False], ids=["listed", "fallback"])
def pushed(
    request: pytest.FixtureRequest, registry: Registry, image: GeneratedImage
) -> GeneratedImage:
    """Have the image as `app:latest` in a registry that lists referrers, or does not."""
    registry.repositories.lists = request.param
    registry.repositories.load(image.path, "app")
    return image


def take(store: Store, registry: Registry, repository: Repository) -> Referrers:
    """Add `app:latest` and what refers to it."""
    where = Reference.parse(f"{registry.host}/app")
    root = copy(RegistrySource(repository, where), StoreSink(store, NAME)).root
    return take_referrers(where, store, NAME, root)


def publish(store: Store, where: str) -> Referrers:
    with open_sink(f"docker://{where}", store) as sink:
        root = copy(StoreSource(store.layout(NAME.path)), sink).root
    return publish_referrers(store, NAME, root, Reference.parse(where))


def listed(registry: Registry, repository: Repository, digest: Digest) -> list[Descriptor]:
    """Return what the registry says refers to a manifest."""
    found = repository.referrers(digest, 100)
    if found is None:
        _, raw = repository.manifest(fallback_tag(digest))
        found = Index.parse(raw).manifests
    return sorted(found, key=lambda entry: entry.digest)


def kept(store: Store, digest: Digest) -> tuple[Descriptor, ...]:
    """Return what the store says refers to a manifest."""
    name = Reference(NAME.registry, NAME.repository, fallback_tag(digest))
    source = StoreSource(store.layout(name.path))
    return Index.parse(read_document(source, source.resolve())).manifests


def write_fallback(repository: Repository, subject: Digest, entries: list[Descriptor]) -> None:
    raw = Index.of(entries).raw
    listing = Descriptor(OCI_INDEX, Digest.of(raw), len(raw))
    repository.put_manifest(fallback_tag(subject), listing, raw)


def test_the_tag_of_a_list_fits_into_a_tag() -> None:
    assert fallback_tag(Digest("sha256", "a" * 64)) == f"sha256-{'a' * 64}"
    assert fallback_tag(Digest("sha512", "a" * 128)) == f"sha512-{'a' * 64}"


def test_referrers_come_and_go_with_the_image(
    store: Store,
    registry: Registry,
    repository: Repository,
    attach: Attach,
    pushed: GeneratedImage,
) -> None:
    signature = attach(pushed.manifest, "signature")
    bill = attach(pushed.manifest, "bill of materials")
    approval = attach(bill.digest, "approval")
    if not registry.repositories.lists:
        write_fallback(repository, pushed.manifest, [signature, bill])
        write_fallback(repository, bill.digest, [approval])
    taken = take(store, registry, repository)
    assert len(taken.copied) == 2
    [listing] = (
        store.layout(Reference(NAME.registry, NAME.repository, fallback_tag(pushed.manifest)).path)
        .index()
        .manifests
    )
    assert listing.is_index
    assert all(digest in store.blobs for digest in (signature.digest, bill.digest, approval.digest))

    published = publish(store, f"{registry.host}/elsewhere:1")
    assert len(published.copied) == 3
    with open_there(registry) as there:
        assert listed(registry, there, pushed.manifest) == sorted(
            [signature, bill], key=lambda entry: entry.digest
        )
        assert listed(registry, there, bill.digest) == [approval]
    tags = registry.repositories.tags("elsewhere")
    if registry.repositories.lists:
        assert published.listed == ()
        assert set(tags) == {"1"}
    else:
        assert set(published.listed) == set(tags) - {"1"}
        assert len(published.listed) == 2

    registry.requests.clear()
    again = publish(store, f"{registry.host}/elsewhere:1")
    assert again == Referrers()
    assert {request.method for request in registry.requests} == {"GET"}


def open_there(registry: Registry) -> AbstractContextManager[Repository]:
    return open_repository(Reference.parse(f"{registry.host}/elsewhere"), Access())


def test_entries_that_a_list_has_stay_in_it(
    store: Store, registry: Registry, repository: Repository, attach: Attach, image: GeneratedImage
) -> None:
    registry.repositories.lists = False
    registry.repositories.load(image.path, "app")
    ours = attach(image.manifest, "ours")
    write_fallback(repository, image.manifest, [ours])
    take(store, registry, repository)
    theirs = attach(image.manifest, "theirs")
    write_fallback(repository, image.manifest, [theirs])
    publish(store, f"{registry.host}/app:latest")
    assert {e.digest for e in listed(registry, repository, image.manifest)} == {
        ours.digest,
        theirs.digest,
    }


def test_an_entry_tells_what_the_artifact_is(
    store: Store, registry: Registry, repository: Repository, attach: Attach, image: GeneratedImage
) -> None:
    registry.repositories.load(image.path, "app")
    attach(image.manifest, "signature")
    take(store, registry, repository)
    registry.repositories.lists = False
    publish(store, f"{registry.host}/elsewhere:1")
    with open_there(registry) as there:
        [entry] = listed(registry, there, image.manifest)
    document = entry.to_document()
    assert document["artifactType"] == "application/vnd.example.signature"
    assert document["annotations"] == {"words": "signature"}


def test_all_pages_of_a_list_are_read(
    store: Store, registry: Registry, repository: Repository, attach: Attach, image: GeneratedImage
) -> None:
    registry.repositories.load(image.path, "app")
    registry.repositories.page = 2
    entries = {attach(image.manifest, f"number {number}").digest for number in range(5)}
    take(store, registry, repository)
    assert {entry.digest for entry in kept(store, image.manifest)} == entries


def test_a_list_without_end_is_refused(
    store: Store,
    registry: Registry,
    repository: Repository,
    attach: Attach,
    image: GeneratedImage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(referrers, "MAX_REFERRERS", 4)
    registry.repositories.load(image.path, "app")
    page = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
    headers = {"Content-Type": OCI_INDEX, "Link": '</v2/app/referrers/x>; rel="next"'}
    registry.faults.append(Fault("GET", "/referrers/", Status(200, headers, page), times=None))
    with pytest.raises(InvalidContent, match="over 4 referrers"):
        take(store, registry, repository)
    assert len([r for r in registry.requests if "/referrers/" in r.path]) == 4


def test_too_many_referrers_are_refused(
    store: Store,
    registry: Registry,
    repository: Repository,
    attach: Attach,
    image: GeneratedImage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(referrer, "MAX_REFERRERS", 3)
    registry.repositories.load(image.path, "app")
    subject = image.manifest
    for number in range(5):  # each refers to the one before
        subject = attach(subject, str(number)).digest
    with pytest.raises(InvalidContent, match="over 3 manifests refer to"):
        take(store, registry, repository)


def test_what_only_claims_to_refer_to_an_image_is_left_out(
    store: Store,
    registry: Registry,
    repository: Repository,
    attach: Attach,
    image: GeneratedImage,
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry.repositories.lists = False
    registry.repositories.load(image.path, "app")
    real = attach(image.manifest, "real")
    other = attach(Digest.of(b"another image"), "of another image")
    gone = Descriptor(OCI_MANIFEST, Digest.of(b"gone"), 4)
    itself = Descriptor(OCI_MANIFEST, image.manifest, image.blob(image.manifest).stat().st_size)
    listing = Index.of([real, other, EMPTY, itself, gone]).raw
    answer = Status(200, {"Content-Type": OCI_INDEX}, listing)
    registry.faults.append(Fault("GET", "/manifests/sha256-", answer))
    take(store, registry, repository)
    assert kept(store, image.manifest) == (real,)
    assert "is no manifest" in caplog.text
    assert "but is absent" in caplog.text
    assert caplog.text.count("which it is not") == 2


@pytest.mark.parametrize("status", [400, 404, 405, 406])
def test_a_registry_that_knows_no_lists_is_asked_for_the_tag(
    store: Store,
    registry: Registry,
    repository: Repository,
    attach: Attach,
    image: GeneratedImage,
    status: int,
) -> None:
    registry.repositories.load(image.path, "app")
    write_fallback(repository, image.manifest, [attach(image.manifest, "signature")])
    registry.faults.append(Fault("GET", "/referrers/", Status(status), times=None))
    assert len(take(store, registry, repository).copied) == 1


def test_a_refusal_is_no_empty_list(
    store: Store, registry: Registry, repository: Repository, image: GeneratedImage
) -> None:
    registry.repositories.load(image.path, "app")
    registry.faults.append(Fault("GET", "/referrers/", Status(403), times=None))
    with pytest.raises(RegistryError, match="HTTP 403"):
        take(store, registry, repository)


def test_a_tag_that_names_an_image_is_not_overwritten(
    store: Store, registry: Registry, repository: Repository, attach: Attach, image: GeneratedImage
) -> None:
    registry.repositories.load(image.path, "app")
    attach(image.manifest, "signature")
    take(store, registry, repository)
    registry.repositories.lists = False
    with open_sink(f"docker://{registry.host}/elsewhere:{fallback_tag(image.manifest)}") as sink:
        copy(LayoutSource(image.path), sink)
    with pytest.raises(InvalidContent, match="names no list of referrers"):
        publish(store, f"{registry.host}/elsewhere:1")


def test_referrers_of_each_platform_are_taken(
    tmp_path: Path, store: Store, registry: Registry, repository: Repository, attach: Attach
) -> None:
    index = index_layout(tmp_path / "index")
    registry.repositories.load(index.path, "app")
    attach(index.index, "of the index")
    attach(index.images[1].manifest, "of one image")
    assert len(take(store, registry, repository).copied) == 2


def test_nothing_refers_to_most_images(
    store: Store, registry: Registry, repository: Repository, image: GeneratedImage
) -> None:
    registry.repositories.load(image.path, "app")
    assert take(store, registry, repository) == Referrers()
    assert list(store.names()) == [NAME.path]
    assert publish(store, f"{registry.host}/elsewhere:1") == Referrers()
