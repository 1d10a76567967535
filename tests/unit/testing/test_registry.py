import hashlib
import json
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest
import requests

from ocistow.oci.digest import Digest
from ocistow.testing.images import image_layout, index_layout, sparse_layout
from ocistow.testing.registry import Registry

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
BLOB = b"some content"
DIGEST = Digest("sha256", hashlib.sha256(BLOB).hexdigest())
ABSENT = Digest("sha256", "0" * 64)


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as registry:
        yield registry


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        session.headers["Accept"] = MANIFEST
        yield session


def code(response: requests.Response) -> str:
    return str(response.json()["errors"][0]["code"])


def push(session: requests.Session, repository: str, data: bytes = BLOB) -> str:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    response = session.post(f"{repository}/blobs/uploads/?digest={digest}", data=data)
    assert response.status_code == 201
    assert response.headers["Docker-Content-Digest"] == digest
    return digest


def manifest(config: str, **more: object) -> bytes:
    entry = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2}
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": entry, **more}
    return json.dumps(document).encode()


def put(session: requests.Session, url: str, body: bytes) -> requests.Response:
    return session.put(url, data=body, headers={"Content-Type": MANIFEST})


def test_who_asks_for_one_answer_is_told_that_there_is_no_other(
    registry: Registry, session: requests.Session
) -> None:
    answer = session.get(f"{registry.url}/v2/", headers={"Connection": "close"})
    assert answer.headers["Connection"] == "close"
    assert "Connection" not in session.get(f"{registry.url}/v2/").headers


def test_the_base_endpoint_answers(registry: Registry, session: requests.Session) -> None:
    assert session.get(f"{registry.url}/v2/").status_code == 200
    assert session.get(f"{registry.url}/").status_code == 404


def test_a_blob_pushed_in_chunks_comes_back(registry: Registry, session: requests.Session) -> None:
    start = session.post(f"{registry.url}/v2/a/b/blobs/uploads/")
    assert (start.status_code, start.headers["Range"]) == (202, "0-0")
    first = session.patch(
        start.headers["Location"], data=BLOB[:4], headers={"Content-Range": "0-3"}
    )
    assert (first.status_code, first.headers["Range"]) == (202, "0-3")
    status = session.get(start.headers["Location"])
    assert (status.status_code, status.headers["Range"]) == (204, "0-3")
    wrong = session.patch(
        first.headers["Location"], data=BLOB[5:], headers={"Content-Range": "5-11"}
    )
    assert wrong.status_code == 416
    chunked = session.patch(first.headers["Location"], data=iter([BLOB[4:6], BLOB[6:8]]))
    assert chunked.headers["Range"] == "0-7"
    last = session.put(chunked.headers["Location"] + f"&digest={DIGEST}", data=BLOB[8:])
    assert last.status_code == 201
    assert session.get(last.headers["Location"]).content == BLOB
    assert registry.repositories.blobs("a/b") == {DIGEST}
    assert [r.received for r in registry.requests if r.method == "PATCH"] == [4, 7, 4]


def test_a_blob_has_a_head_and_ranges(registry: Registry, session: requests.Session) -> None:
    url = f"{registry.url}/v2/a/blobs/{push(session, f'{registry.url}/v2/a')}"
    head = session.head(url)
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(BLOB)))
    assert head.headers["Docker-Content-Digest"] == str(DIGEST)
    for asked, status, got, content_range in (
        ("bytes=0-3", 206, BLOB[:4], f"bytes 0-3/{len(BLOB)}"),
        ("bytes=5-", 206, BLOB[5:], f"bytes 5-{len(BLOB) - 1}/{len(BLOB)}"),
        ("bytes=5-999", 206, BLOB[5:], f"bytes 5-{len(BLOB) - 1}/{len(BLOB)}"),
        ("bytes=99-", 416, b"", f"bytes */{len(BLOB)}"),
    ):
        response = session.get(url, headers={"Range": asked})
        assert (response.status_code, response.content) == (status, got)
        assert response.headers["Content-Range"] == content_range
    assert session.get(url, headers={"Range": "bytes=-3"}).content == BLOB


def test_a_blob_belongs_to_a_repository_until_it_is_mounted(
    registry: Registry, session: requests.Session
) -> None:
    push(session, f"{registry.url}/v2/a")
    there = f"{registry.url}/v2/b/blobs/{DIGEST}"
    assert session.head(there).status_code == 404
    uploads = f"{registry.url}/v2/b/blobs/uploads/"
    assert session.post(f"{uploads}?mount={ABSENT}&from=a").status_code == 202
    assert session.post(f"{uploads}?mount={DIGEST}&from=c").status_code == 202
    assert session.post(f"{uploads}?mount={DIGEST}&from=a").status_code == 201
    assert session.get(there).content == BLOB


def test_wrong_content_is_refused_and_the_upload_forgotten(
    registry: Registry, session: requests.Session
) -> None:
    start = session.post(f"{registry.url}/v2/a/blobs/uploads/")
    refused = session.put(f"{start.headers['Location']}&digest={ABSENT}", data=BLOB)
    assert (refused.status_code, code(refused)) == (400, "DIGEST_INVALID")
    gone = session.get(start.headers["Location"])
    assert (gone.status_code, code(gone)) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert not registry.repositories.blobs("a")


def test_an_upload_is_cancelled(registry: Registry, session: requests.Session) -> None:
    location = session.post(f"{registry.url}/v2/a/blobs/uploads/").headers["Location"]
    other = location.replace("/v2/a/", "/v2/b/")
    assert code(session.patch(other, data=BLOB)) == "BLOB_UPLOAD_UNKNOWN"
    assert session.delete(location).status_code == 204
    assert code(session.patch(location, data=BLOB)) == "BLOB_UPLOAD_UNKNOWN"


def test_a_manifest_comes_back_as_it_was_pushed(
    registry: Registry, session: requests.Session
) -> None:
    repository = f"{registry.url}/v2/a"
    body = b" " + manifest(push(session, repository))
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    assert put(session, f"{repository}/manifests/v1", body).status_code == 201
    for reference in ("v1", digest):
        for method in ("GET", "HEAD"):
            response = session.request(method, f"{repository}/manifests/{reference}")
            assert response.headers["Content-Type"] == MANIFEST
            assert response.headers["Docker-Content-Digest"] == digest
            assert response.headers["Content-Length"] == str(len(body))
            assert response.content == (body if method == "GET" else b"")
    assert registry.repositories.manifest("a", Digest.parse(digest)) == body
    unaccepted = session.get(f"{repository}/manifests/v1", headers={"Accept": "*/*"})
    assert (unaccepted.status_code, code(unaccepted)) == (404, "MANIFEST_UNKNOWN")


@pytest.mark.parametrize(
    ("reference", "body", "media_type", "expected"),
    [
        ("v1", manifest(str(ABSENT)), MANIFEST, "MANIFEST_BLOB_UNKNOWN"),
        ("v1", b"[]", MANIFEST, "MANIFEST_INVALID"),
        ("v1", b"{", MANIFEST, "MANIFEST_INVALID"),
        ("v1", b"{}", MANIFEST, "201"),
        ("v1", manifest(str(ABSENT)), "text/plain", "MANIFEST_INVALID"),
        ("v1", b'{"manifests": [{"digest": "%s"}]}' % str(ABSENT).encode(), "", "BLOB_UNKNOWN"),
        (str(ABSENT), b"{}", MANIFEST, "DIGEST_INVALID"),
        ("-v1", b"{}", MANIFEST, "TAG_INVALID"),
        ("v1", b" " * ((4 << 20) + 1), MANIFEST, "MANIFEST_INVALID"),
    ],
)
def test_a_manifest_is_checked(
    registry: Registry,
    session: requests.Session,
    reference: str,
    body: bytes,
    media_type: str,
    expected: str,
) -> None:
    url = f"{registry.url}/v2/a/manifests/{reference}"
    response = session.put(url, data=body, headers={"Content-Type": media_type})
    got = "201" if response.ok else code(response)
    assert got.endswith(expected)
    assert session.get(url).status_code == (200 if response.ok else 404)


def test_unknown_things_have_their_error_codes(
    registry: Registry, session: requests.Session
) -> None:
    for method, path, status, expected in (
        ("GET", f"a/blobs/{ABSENT}", 404, "BLOB_UNKNOWN"),
        ("GET", "a/blobs/sha256:xx", 400, "DIGEST_INVALID"),
        ("GET", "a/manifests/v1", 404, "MANIFEST_UNKNOWN"),
        ("GET", f"a/manifests/{ABSENT}", 404, "MANIFEST_UNKNOWN"),
        ("GET", "a/tags/list", 404, "NAME_UNKNOWN"),
        ("GET", "A/tags/list", 400, "NAME_INVALID"),
        ("PUT", "a/tags/list", 405, "UNSUPPORTED"),
        ("GET", "a/nonsense", 404, "UNSUPPORTED"),
    ):
        response = session.request(method, f"{registry.url}/v2/{path}")
        assert (response.status_code, code(response)) == (status, expected), path


def test_tags_come_in_pages(registry: Registry, session: requests.Session) -> None:
    for tag in ("c", "a", "b"):
        put(session, f"{registry.url}/v2/x/manifests/{tag}", b"{}")
    url = f"{registry.url}/v2/x/tags/list"
    assert session.get(url).json() == {"name": "x", "tags": ["a", "b", "c"]}
    first = session.get(f"{url}?n=2")
    assert first.json()["tags"] == ["a", "b"]
    second = session.get(registry.url + first.links["next"]["url"])
    assert second.json()["tags"] == ["c"]
    assert "next" not in second.links


def test_referrers_are_listed_by_their_subject(
    registry: Registry, session: requests.Session
) -> None:
    repository = f"{registry.url}/v2/a"
    config = push(session, repository)
    subject = {"mediaType": MANIFEST, "digest": str(ABSENT), "size": 2}
    for kind in ("example/x", "example/y"):
        body = manifest(config, subject=subject, artifactType=kind)
        response = put(session, f"{repository}/manifests/{kind[-1]}", body)
        assert response.headers["OCI-Subject"] == str(ABSENT)
    every = session.get(f"{repository}/referrers/{ABSENT}")
    assert [entry["artifactType"] for entry in every.json()["manifests"]] == [
        "example/x",
        "example/y",
    ]
    some = session.get(f"{repository}/referrers/{ABSENT}?artifactType=example/y")
    assert len(some.json()["manifests"]) == 1
    assert some.headers["OCI-Filters-Applied"] == "artifactType"
    assert session.get(f"{repository}/referrers/{DIGEST}").json()["manifests"] == []


def test_credentials_are_asked_for(session: requests.Session) -> None:
    with Registry(credentials=("user", "pass")) as registry:
        refused = session.post(f"{registry.url}/v2/a/blobs/uploads/?digest={DIGEST}", data=BLOB)
        assert (refused.status_code, code(refused)) == (401, "UNAUTHORIZED")
        assert refused.headers["WWW-Authenticate"] == 'Basic realm="registry"'
        assert session.get(f"{registry.url}/v2/", auth=("user", "wrong")).status_code == 401
        assert session.get(f"{registry.url}/v2/", auth=("user", "pass")).status_code == 200
        sent = ["authorization" in request.headers for request in registry.requests]
        assert sent == [False, True, True]
        assert [request.status for request in registry.requests] == [401, 401, 200]
        assert registry.requests[0].received == len(BLOB)


def test_locations_can_be_relative(session: requests.Session) -> None:
    with Registry(relative=True) as registry:
        location = session.post(f"{registry.url}/v2/a/blobs/uploads/").headers["Location"]
        assert location.startswith("/v2/a/blobs/uploads/")


def test_a_layout_is_loaded_without_a_request(
    registry: Registry, session: requests.Session, tmp_path: Path
) -> None:
    image = image_layout(tmp_path / "image")
    registry.repositories.load(tmp_path / "image", "a")
    assert registry.repositories.tags("a") == {"latest": image.manifest}
    assert registry.repositories.blobs("a") == {image.config, *image.layers}
    index = index_layout(tmp_path / "index")
    registry.repositories.load(tmp_path / "index", "b")
    assert registry.repositories.tags("b") == {"latest": index.index}
    sparse = sparse_layout(tmp_path / "sparse", absent=2)
    registry.repositories.load(tmp_path / "sparse", "c")
    assert registry.repositories.blobs("c") == {sparse.config, sparse.layers[2]}
    assert registry.requests == []
    for name, digest in (("a", image.manifest), ("b", index.images[1].manifest)):
        response = session.get(f"{registry.url}/v2/{name}/manifests/{digest}")
        assert response.headers["Content-Type"] == MANIFEST


def test_a_connection_is_kept_even_after_a_refusal(registry: Registry) -> None:
    with closing(HTTPConnection(registry.host)) as connection:
        connection.connect()
        first = connection.sock
        for _ in range(3):
            path = "/v2/A/blobs/uploads/"
            connection.request("POST", path, body=iter([BLOB, BLOB]), encode_chunked=True)
            with connection.getresponse() as response:
                assert json.load(response)["errors"][0]["code"] == "NAME_INVALID"
            assert connection.sock is first
    assert [request.received for request in registry.requests] == [2 * len(BLOB)] * 3
