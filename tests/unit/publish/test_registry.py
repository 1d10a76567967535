import json
from contextlib import nullcontext
from pathlib import Path

import pytest

from ocistow.oci.descriptor import REF_NAME
from ocistow.oci.digest import Digest
from ocistow.oci.errors import (
    DigestMismatch,
    InvalidContent,
    NotFound,
    OcistowError,
    RegistryError,
    RegistryUnavailable,
)
from ocistow.oci.platform import Platform
from ocistow.oci.reference import Reference
from ocistow.publish.access import Access
from ocistow.publish.copy import copy
from ocistow.publish.distribution.endpoint import Endpoint, is_loopback
from ocistow.publish.distribution.hosts import open_repository
from ocistow.publish.distribution.repository import PROGRESS, Repository
from ocistow.publish.distribution.retries import BACKOFF, TRIES
from ocistow.publish.distribution.transport import Transport
from ocistow.publish.layout import LayoutSource, StoreSink
from ocistow.publish.registry import RegistrySink, RegistrySource
from ocistow.publish.transports import open_sink, open_source
from ocistow.store.store import Store
from ocistow.testing.faults import (
    Action,
    Drop,
    Endless,
    Fault,
    Flip,
    Hang,
    LoseAnswer,
    Status,
    Surplus,
    Truncate,
    WrongDigest,
)
from ocistow.testing.images import GeneratedImage, image_layout, index_layout
from ocistow.testing.registry import Registry

NAME = Reference.parse("example.org/app:1")


@pytest.fixture
def pushed(registry: Registry, image: GeneratedImage) -> GeneratedImage:
    """Have the image in the registry already, as `app:latest`."""
    registry.repositories.load(image.path, "app")
    return image


def source_of(repository: Repository, text: str = "app") -> RegistrySource:
    return RegistrySource(repository, Reference.parse(text))


def methods(registry: Registry) -> list[str]:
    return [request.method for request in registry.requests]


def test_what_is_pushed_comes_back_unchanged(
    store: Store, registry: Registry, repository: Repository, image: GeneratedImage
) -> None:
    copied = copy(LayoutSource(image.path), RegistrySink(repository, NAME))
    assert (copied.sent, copied.present) == (5, 0)
    manifest = image.blob(image.manifest).read_bytes()
    assert registry.repositories.tags("app") == {"1": image.manifest}
    assert registry.repositories.manifest("app", image.manifest) == manifest

    back = copy(source_of(repository, "app:1"), StoreSink(store, NAME))
    assert (back.sent, back.root.digest) == (5, image.manifest)
    assert back.root.annotations[REF_NAME] == "index.docker.io/library/app:1"
    registry.requests.clear()
    assert copy(source_of(repository, "app:1"), StoreSink(store, NAME)).sent == 0
    assert methods(registry) == ["GET"]


def test_an_unchanged_image_costs_one_request(
    registry: Registry, repository: Repository, image: GeneratedImage
) -> None:
    copy(LayoutSource(image.path), RegistrySink(repository, NAME))
    registry.requests.clear()
    for digest in image.layers:
        image.blob(digest).unlink()  # no layer byte is read
    copied = copy(LayoutSource(image.path), RegistrySink(repository, NAME))
    assert (copied.sent, copied.present) == (0, 5)
    assert methods(registry) == ["GET"]


def test_the_previous_image_tells_which_blobs_are_there(
    tmp_path: Path, registry: Registry, repository: Repository
) -> None:
    base = image_layout(tmp_path / "one", layers=4)
    copy(LayoutSource(base.path), RegistrySink(repository, NAME))
    registry.requests.clear()
    image = image_layout(tmp_path / "two", seed=1, layers=1, base=base)
    copied = copy(LayoutSource(image.path), RegistrySink(repository, NAME))
    assert (copied.sent, copied.present) == (3, 4)
    heads = [r.path for r in registry.requests if r.method == "HEAD" and "/blobs/" in r.path]
    assert len(heads) == 2  # the new layer and the config


def test_blobs_that_the_previous_image_wrongly_promised_are_sent(
    tmp_path: Path, registry: Registry, repository: Repository
) -> None:
    base = image_layout(tmp_path / "one", layers=2)
    copy(LayoutSource(base.path), RegistrySink(repository, NAME))
    unknown = json.dumps({"errors": [{"code": "MANIFEST_BLOB_UNKNOWN", "message": "gone"}]})
    registry.faults.append(Fault("PUT", "/manifests/", Status(400, {}, unknown.encode())))
    registry.faults.append(Fault("HEAD", f"/blobs/{base.layers[0]}", Status(404), times=None))
    image = image_layout(tmp_path / "two", seed=1, layers=1, base=base)
    copy(LayoutSource(image.path), RegistrySink(repository, NAME))
    assert registry.repositories.tags("app") == {"1": image.manifest}
    posts = [request for request in registry.requests if request.method == "POST"]
    assert len(posts) == 3 + 2 + 1


@pytest.mark.parametrize("times", [2, 3])
def test_blobs_that_are_unknown_for_a_moment_are_no_failure(
    registry: Registry, repository: Repository, image: GeneratedImage, times: int
) -> None:
    unknown = json.dumps(
        {"errors": [{"code": "DIGEST_INVALID"}, {"code": "MANIFEST_BLOB_UNKNOWN"}]}
    )
    refusal = Status(400, {}, unknown.encode())
    registry.faults.append(Fault("PUT", "/manifests/", refusal, times=times))
    for_long = pytest.raises(RegistryError, match="MANIFEST_BLOB_UNKNOWN")
    with for_long if times == 3 else nullcontext():
        copy(LayoutSource(image.path), RegistrySink(repository, NAME))
    assert bool(registry.repositories.tags("app")) == (times == 2)


def test_a_digest_is_published_under_itself(
    registry: Registry, repository: Repository, image: GeneratedImage
) -> None:
    reference = Reference.parse(f"app@{image.manifest}")
    copy(LayoutSource(image.path), RegistrySink(repository, reference))
    assert registry.repositories.tags("app") == {}
    assert registry.repositories.manifest("app", image.manifest)
    wrong = Reference.parse(f"app@{image.config}")
    with pytest.raises(InvalidContent, match="cannot name"):
        copy(LayoutSource(image.path), RegistrySink(repository, wrong))


def test_an_empty_blob_is_pushed(
    registry: Registry, repository: Repository, image: GeneratedImage
) -> None:
    manifest = json.loads(image.blob(image.manifest).read_bytes())
    empty = Digest.of(b"")
    image.blob(empty).touch()
    manifest["layers"].append({"mediaType": "text/plain", "digest": str(empty), "size": 0})
    raw = json.dumps(manifest).encode()
    image.blob(Digest.of(raw)).write_bytes(raw)
    entry = {
        "mediaType": manifest["mediaType"],
        "digest": str(Digest.of(raw)),
        "size": len(raw),
    }
    (image.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    copy(LayoutSource(image.path), RegistrySink(repository, NAME))
    assert empty in registry.repositories.blobs("app")


def test_an_index_is_fetched_whole_or_for_one_platform(
    tmp_path: Path, store: Store, registry: Registry, repository: Repository
) -> None:
    index = index_layout(tmp_path / "index", tag="1")
    registry.repositories.load(index.path, "app")
    assert copy(source_of(repository, "app:1"), StoreSink(store, NAME)).root.digest == index.index
    arm = RegistrySource(repository, NAME, Platform.parse("linux/arm64"))
    assert copy(arm, StoreSink(store, NAME)).root.digest == index.images[1].manifest


def test_an_absent_image_is_named(store: Store, repository: Repository) -> None:
    with pytest.raises(NotFound, match=r"^index\.docker\.io/library/app:none: not found$"):
        copy(source_of(repository, "app:none"), StoreSink(store, NAME))


# What a registry may do to somebody who fetches.


@pytest.mark.parametrize(
    ("path", "action", "error"),
    [
        ("/blobs/", Flip(100), DigestMismatch),
        ("/blobs/", Surplus(1), InvalidContent),
        ("/blobs/", Endless(), InvalidContent),
        ("/blobs/", Endless(chunked=True), InvalidContent),
        ("/blobs/", Truncate(50), RegistryUnavailable),
        ("/blobs/", Drop(50), RegistryUnavailable),
        ("/blobs/", Hang(), RegistryUnavailable),
        ("/blobs/", Status(500), RegistryUnavailable),
        ("/blobs/", Status(403), RegistryError),
        ("/blobs/", Status(404), NotFound),
        ("/blobs/", Status(302, {"Location": "ftp://example.org/x"}), InvalidContent),
        ("/blobs/", Status(302, {"Location": "/v2/app/blobs/x"}), InvalidContent),
        ("/blobs/", Status(302), RegistryError),
        ("/manifests/", Flip(100), InvalidContent),
        ("/manifests/", Surplus(1), InvalidContent),
        ("/manifests/", Endless(), InvalidContent),
        ("/manifests/", Endless(chunked=True), InvalidContent),
        ("/manifests/", WrongDigest(), DigestMismatch),
        ("/manifests/", WrongDigest("nonsense"), InvalidContent),
        ("/manifests/", Hang(), RegistryUnavailable),
        ("/manifests/", Drop(50), RegistryUnavailable),
        ("/manifests/", Status(200, {}, b"<html>"), InvalidContent),
        ("/manifests/", Status(200, {"Content-Type": "text/html"}, b"{}"), InvalidContent),
    ],
    ids=str,
)
def test_a_registry_that_misbehaves_leaves_the_name_as_it_was(
    store: Store,
    registry: Registry,
    repository: Repository,
    pushed: GeneratedImage,
    named: Digest,
    path: str,
    action: Action,
    error: type[OcistowError],
) -> None:
    registry.faults.append(Fault("GET", path, action, times=None))
    with pytest.raises(error) as raised:
        copy(source_of(repository), StoreSink(store, NAME))
    assert "\n" not in str(raised.value)


def test_a_blob_of_another_announced_size_is_not_read(
    store: Store, registry: Registry, repository: Repository, pushed: GeneratedImage
) -> None:
    registry.faults.append(Fault("GET", "/blobs/", Surplus(1), times=None))
    with pytest.raises(InvalidContent, match=r"bytes are offered, the descriptor announces \d+$"):
        copy(source_of(repository), StoreSink(store, NAME))


def test_a_blob_is_taken_up_where_the_connection_broke(
    tmp_path: Path, store: Store, registry: Registry, repository: Repository
) -> None:
    image = image_layout(tmp_path / "big", layers=1, layer_size=4 << 20, compression="none")
    registry.repositories.load(image.path, "app")
    for _ in range(TRIES - 1):
        registry.faults.append(Fault("GET", str(image.layers[0]), Truncate(1 << 20)))
    copy(source_of(repository), StoreSink(store, NAME))
    ranges = [request.headers.get("Range") for request in registry.requests]
    assert f"bytes={2 << 20}-{image.blob(image.layers[0]).stat().st_size - 1}" in ranges


def test_a_blob_may_lose_its_connection_as_often_as_it_proceeds(
    store: Store, tmp_path: Path, registry: Registry, repository: Repository
) -> None:
    size = (TRIES + 2) * PROGRESS
    image = image_layout(tmp_path / "big", layers=1, layer_size=size, compression="none")
    registry.repositories.load(image.path, "app")
    registry.faults.append(Fault("GET", str(image.layers[0]), Truncate(PROGRESS), times=None))
    assert copy(source_of(repository), StoreSink(store, NAME)).root.digest == image.manifest
    sent = [request for request in registry.requests if str(image.layers[0]) in request.path]
    assert len(sent) == TRIES + 3


def test_a_manifest_asked_for_by_digest_must_be_that(
    repository: Repository, registry: Registry, pushed: GeneratedImage
) -> None:
    other = registry.repositories.manifest("app", pushed.manifest)
    kind = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}
    registry.faults.append(Fault("GET", "/manifests/", Status(200, kind, other + b" ")))
    with pytest.raises(DigestMismatch):
        source_of(repository, f"app@{pushed.manifest}").resolve()


def test_temporary_refusals_are_tried_again(
    store: Store,
    registry: Registry,
    repository: Repository,
    pushed: GeneratedImage,
    waits: list[float],
) -> None:
    registry.faults.append(Fault("GET", "/manifests/", Status(429, {"Retry-After": "7"})))
    registry.faults.append(Fault("GET", "/manifests/", Status(503)))
    copy(source_of(repository), StoreSink(store, NAME))
    assert waits[0] == 7.0
    assert 0.0 <= waits[1] <= 2 * BACKOFF


def test_whoever_asks_for_a_long_wait_gets_none(
    registry: Registry, repository: Repository, pushed: GeneratedImage, waits: list[float]
) -> None:
    registry.faults.append(Fault("GET", "/manifests/", Status(429, {"Retry-After": "3600"})))
    with pytest.raises(RegistryUnavailable, match="asks to wait 3600 seconds, over 30"):
        source_of(repository).resolve()
    assert waits == []


# What a registry may do to somebody who publishes.


@pytest.mark.parametrize(
    ("method", "path", "action"),
    [
        ("HEAD", "/blobs/", Status(500)),
        ("POST", "/uploads/", Status(502)),
        ("POST", "/uploads/", LoseAnswer()),
        ("PUT", "/uploads/", Drop(10)),
        ("PUT", "/uploads/", LoseAnswer()),
        ("PUT", "/uploads/", Status(503)),
        ("PUT", "/manifests/", LoseAnswer()),
        ("PUT", "/manifests/", Status(504)),
    ],
    ids=str,
)
def test_a_push_goes_on_after_a_lost_request(
    registry: Registry,
    repository: Repository,
    image: GeneratedImage,
    method: str,
    path: str,
    action: Action,
) -> None:
    registry.faults.append(Fault(method, path, action))
    copy(LayoutSource(image.path), RegistrySink(repository, NAME))
    assert registry.repositories.tags("app") == {"1": image.manifest}
    assert {*image.layers, image.config} <= registry.repositories.blobs("app")


def test_a_commit_that_lost_its_answer_is_not_repeated(
    registry: Registry, repository: Repository, image: GeneratedImage
) -> None:
    registry.faults.append(Fault("PUT", "/uploads/", LoseAnswer()))
    copy(LayoutSource(image.path), RegistrySink(repository, NAME))
    assert methods(registry).count("POST") == 4


@pytest.mark.parametrize(
    ("method", "path", "action", "error"),
    [
        ("GET", "/manifests/", Status(401), RegistryError),
        ("HEAD", "/blobs/", Status(403), RegistryError),
        ("POST", "/uploads/", Status(405), RegistryError),
        ("POST", "/uploads/", Status(202), InvalidContent),
        ("POST", "/uploads/", Status(202, {"Location": "ftp://x/"}), InvalidContent),
        ("PUT", "/uploads/", WrongDigest(), DigestMismatch),
        ("PUT", "/uploads/", Hang(), RegistryUnavailable),
        ("PUT", "/uploads/", Status(413), RegistryError),
        ("PUT", "/manifests/", WrongDigest(), DigestMismatch),
        ("PUT", "/manifests/", Status(200), RegistryError),
        ("PUT", "/manifests/", Status(500), RegistryUnavailable),
    ],
    ids=str,
)
def test_a_refused_push_gives_one_line(
    registry: Registry,
    repository: Repository,
    image: GeneratedImage,
    method: str,
    path: str,
    action: Action,
    error: type[OcistowError],
) -> None:
    registry.faults.append(Fault(method, path, action, times=None))
    with pytest.raises(error) as raised:
        copy(LayoutSource(image.path), RegistrySink(repository, NAME))
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300


def test_a_damaged_blob_is_not_pushed(
    registry: Registry, repository: Repository, image: GeneratedImage
) -> None:
    blob = image.blob(image.layers[0])
    blob.write_bytes(bytes(blob.stat().st_size))
    with pytest.raises(RegistryError, match="DIGEST_INVALID"):
        copy(LayoutSource(image.path), RegistrySink(repository, NAME))
    assert registry.repositories.tags("app") == {}


def test_the_registrys_own_words_are_passed_on(repository: Repository, registry: Registry) -> None:
    body = json.dumps({"errors": [{"code": "DENIED", "message": "push\nto\x1b[31m app denied"}]})
    registry.faults.append(Fault("GET", "/", Status(403, {}, body.encode())))
    with pytest.raises(RegistryError) as raised:
        source_of(repository).resolve()
    words = "DENIED: push to [31m app denied (HTTP 403)"
    assert str(raised.value) == f"GET {registry.url}/v2/app/manifests/latest: {words}"


def test_a_huge_error_page_is_not_read(repository: Repository, registry: Registry) -> None:
    registry.faults.append(Fault("GET", "/", Status(403, {}, b"x" * (8 << 20))))
    with pytest.raises(RegistryError, match=r"forbidden \(HTTP 403\)"):
        source_of(repository).resolve()


# Credentials.


def test_credentials_go_to_the_registry_only(store: Store, image: GeneratedImage) -> None:
    with Registry() as cdn, Registry(credentials=("user", "secret")) as registry:
        cdn.repositories.load(image.path, "app")
        registry.repositories.load(image.path, "app")
        for digest in image.layers:
            elsewhere = Status(307, {"Location": f"{cdn.url}/v2/app/blobs/{digest}?signed=1"})
            registry.faults.append(Fault("GET", f"/blobs/{digest}", elsewhere))
        access = Access(("user", "secret"))
        text = f"docker://{registry.host}/app"
        with open_source(text, store, access=access) as source:
            assert copy(source, StoreSink(store, NAME)).sent == 5
        assert len(cdn.requests) == 3
        assert not any("Authorization" in request.headers for request in cdn.requests)
        assert all("Authorization" in request.headers for request in registry.requests[1:])


def test_a_redirect_within_the_registry_keeps_the_credentials(image: GeneratedImage) -> None:
    with Registry(credentials=("user", "secret")) as registry:
        registry.repositories.load(image.path, "app")
        there = Status(307, {"Location": f"/v2/app/manifests/{image.manifest}"})
        registry.faults.append(Fault("GET", "/manifests/latest", there))
        access = Access(("user", "secret"))
        with open_repository(Reference.parse(f"{registry.host}/app"), access) as repository:
            found, _ = repository.manifest("latest")
        assert found.digest == image.manifest


@pytest.mark.parametrize("credentials", [None, ("user", "wrong")])
def test_missing_credentials_give_one_line_without_them(
    image: GeneratedImage, credentials: tuple[str, str] | None
) -> None:
    with Registry(credentials=("user", "secret")) as registry:
        text = f"docker://{registry.host}/app:1"
        with (
            open_sink(text, access=Access(credentials)) as sink,
            pytest.raises(RegistryError, match="UNAUTHORIZED") as raised,
        ):
            copy(LayoutSource(image.path), sink)
        assert "wrong" not in str(raised.value)


def test_an_upload_sent_elsewhere_has_no_credentials(image: GeneratedImage) -> None:
    with Registry() as other, Registry(credentials=("user", "secret")) as registry:
        there = Status(202, {"Location": f"{other.url}/v2/app/blobs/uploads/x"})
        registry.faults.append(Fault("POST", "/uploads/", there, times=None))
        with (
            open_sink(f"docker://{registry.host}/app:1", access=Access(("user", "secret"))) as sink,
            pytest.raises(RegistryError),
        ):
            copy(LayoutSource(image.path), sink)
        assert other.requests
        assert not any("Authorization" in request.headers for request in other.requests)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("127.9.9.9", True),
        ("[::1]:5000", True),
        ("[::1]", True),
        ("localhost.example.org:5000", False),
        ("127.0.0.1.example.org", False),
        ("128.0.0.1", False),
        ("[::2]:80", False),
        ("registry-1.docker.io", False),
    ],
)
def test_plain_http_is_for_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_an_absent_registry_gives_one_line(store: Store, waits: list[float]) -> None:
    with Registry() as registry:
        host = registry.host  # nobody listens there any more
    with Transport(Endpoint(host, plain_http=True), Access(), waits.append) as transport:
        source = RegistrySource(Repository(transport, "app"), Reference.parse("app"))
        with pytest.raises(RegistryUnavailable) as raised:
            source.resolve()
    assert str(raised.value) == f"GET http://{host}/v2/app/manifests/latest: connection refused"
    assert len(waits) == TRIES - 1


def test_https_to_a_plain_registry_gives_one_line(registry: Registry, waits: list[float]) -> None:
    endpoint = Endpoint(registry.host, verify=False)
    with Transport(endpoint, Access(), waits.append) as transport:
        source = RegistrySource(Repository(transport, "app"), Reference.parse("app"))
        with pytest.raises(RegistryError) as raised:
            source.resolve()
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 200
