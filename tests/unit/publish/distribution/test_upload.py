"""Uploads: in one piece, in chunks, and on from where the registry stands."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from ocistow.oci.descriptor import Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.errors import InvalidContent, OcistowError, RegistryError, RegistryUnavailable
from ocistow.oci.reference import Reference
from ocistow.publish.access import Access
from ocistow.publish.distribution import upload
from ocistow.publish.distribution.endpoint import Endpoint
from ocistow.publish.distribution.hosts import open_repository
from ocistow.publish.distribution.repository import Repository
from ocistow.publish.distribution.transport import Transport
from ocistow.publish.provenance import UploadSessions
from ocistow.publish.source import Blob
from ocistow.store.index.database import IndexDatabase
from ocistow.store.index.uploads import Uploads
from ocistow.testing.faults import Action, Drop, Fault, Hang, LoseAnswer, Status
from ocistow.testing.registry import Registry

KIB = 1024
SIZE = 1000 * KIB  # of a large blob here
CHUNK = 256 * KIB
LEAST = 16 * KIB
CONTENT = os.urandom(SIZE)
LARGE = Descriptor("application/octet-stream", Digest.of(CONTENT), SIZE)
SMALL = Descriptor("application/octet-stream", Digest.of(CONTENT[:KIB]), KIB)
INVALID = json.dumps({"errors": [{"code": "DIGEST_INVALID", "message": "no"}]}).encode()


class Content:
    """A source of `CONTENT`, or what it starts with."""

    sparse = False

    def __init__(self, file: Path | None = None) -> None:
        self.opened = 0
        self._file = file

    def resolve(self) -> Descriptor:
        raise AssertionError

    def open(self, descriptor: Descriptor) -> Blob:
        self.opened += 1
        if self._file is not None:
            stream = self._file.open("rb")
            return Blob(stream, descriptor, stream.fileno())
        return Blob(BytesIO(CONTENT[: descriptor.size]), descriptor)


@pytest.fixture(autouse=True)
def small_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "LARGE", 512 * KIB)
    monkeypatch.setattr(upload, "CHUNK", CHUNK)
    monkeypatch.setattr(upload, "MOST", 2 * CHUNK)
    monkeypatch.setattr(upload, "LEAST", LEAST)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "index.sqlite"


@pytest.fixture
def sessions(registry: Registry, database: Path) -> UploadSessions:
    return UploadSessions(Uploads(IndexDatabase(database)), registry.host, "app")


def sent(registry: Registry) -> int:
    """Return the bytes that the registry got of blobs."""
    return sum(r.received for r in registry.requests if "/uploads/" in r.path)


def steps(registry: Registry) -> list[tuple[str, int]]:
    return [(r.method, r.received) for r in registry.requests]


def test_a_small_blob_goes_in_one_piece(registry: Registry, repository: Repository) -> None:
    repository.upload(SMALL, Content())
    assert steps(registry) == [("POST", 0), ("PUT", KIB)]


def test_a_large_blob_goes_in_chunks_that_grow(registry: Registry, repository: Repository) -> None:
    source = Content()
    repository.upload(LARGE, source)
    rest = SIZE - 3 * CHUNK
    assert steps(registry) == [
        ("POST", 0),
        ("PATCH", CHUNK),
        ("PATCH", 2 * CHUNK),
        ("PATCH", rest),
        ("PUT", 0),
    ]
    spans = [request.headers["Content-Range"] for request in registry.requests[1:4]]
    assert spans == [
        f"0-{CHUNK - 1}",
        f"{CHUNK}-{3 * CHUNK - 1}",
        f"{3 * CHUNK}-{SIZE - 1}",
    ]
    assert source.opened == 1
    assert LARGE.digest in registry.repositories.blobs("app")


def test_locations_may_be_relative() -> None:
    with Registry(relative=True) as registry:
        reference = Reference.parse(f"{registry.host}/app")
        with open_repository(reference, Access()) as repository:
            repository.upload(LARGE, Content())
        assert LARGE.digest in registry.repositories.blobs("app")


EDGES = sorted({edge + step for edge in (CHUNK, 3 * CHUNK, SIZE) for step in (-1, 0)} | {2, 5000})


@pytest.mark.parametrize("after", EDGES)
@pytest.mark.parametrize("file", [True, False], ids=["file", "stream"])
def test_a_lost_connection_costs_no_byte_that_arrived(
    tmp_path: Path, registry: Registry, repository: Repository, after: int, *, file: bool
) -> None:
    (tmp_path / "blob").write_bytes(CONTENT)
    starts = [0, CHUNK, 3 * CHUNK]
    start = max(s for s in starts if s < after)
    registry.faults.append(Fault("PATCH", f"_state={start}$", Drop(after - start)))
    repository.upload(LARGE, Content(tmp_path / "blob" if file else None))
    assert LARGE.digest in registry.repositories.blobs("app")
    assert sent(registry) == SIZE
    assert [r.method for r in registry.requests].count("GET") == 1


def test_one_byte_that_arrived_is_not_told_from_none(
    registry: Registry, repository: Repository
) -> None:
    """The registry says `0-0` for both, so it is contradicted, and the upload begun anew."""
    registry.faults.append(Fault("PATCH", "/uploads/", Drop(1)))
    repository.upload(LARGE, Content())
    assert LARGE.digest in registry.repositories.blobs("app")


def test_what_broke_off_goes_on_in_smaller_chunks(
    registry: Registry, repository: Repository
) -> None:
    registry.faults.append(Fault("PATCH", "/uploads/", Drop(1000)))
    repository.upload(LARGE, Content())
    chunks = [r.received for r in registry.requests if r.method == "PATCH"]
    assert chunks[:4] == [1000, CHUNK // 4, CHUNK // 2, CHUNK]


def test_one_piece_that_broke_off_goes_on_in_chunks(
    registry: Registry, repository: Repository
) -> None:
    registry.faults.append(Fault("PUT", "/uploads/", Drop(1000)))
    repository.upload(SMALL, Content())
    assert steps(registry) == [
        ("POST", 0),
        ("PUT", 1000),
        ("HEAD", 0),
        ("GET", 0),
        ("PATCH", KIB - 1000),
        ("PUT", 0),
    ]


@pytest.mark.parametrize("descriptor", [SMALL, LARGE], ids=["small", "large"])
def test_a_registry_that_forgets_what_broke_off_gets_it_again(
    registry: Registry, repository: Repository, descriptor: Descriptor
) -> None:
    registry.faults.append(Fault("PUT|PATCH", "/uploads/", Drop(1000)))
    registry.faults.append(Fault("GET", "/uploads/", Status(404)))
    repository.upload(descriptor, Content())
    assert descriptor.digest in registry.repositories.blobs("app")
    assert sent(registry) == 1000 + descriptor.size


@pytest.mark.parametrize(
    ("method", "path", "action"),
    [
        ("POST", "/uploads/", LoseAnswer()),
        ("POST", "/uploads/", Status(503)),
        ("PATCH", "/uploads/", LoseAnswer()),
        ("PATCH", "/uploads/", Hang(served=True)),
        ("PATCH", "/uploads/", Hang()),
        ("PATCH", "/uploads/", Status(500)),
        ("PATCH", "/uploads/", Status(429, {"Retry-After": "1"})),
        ("PUT", "/uploads/", LoseAnswer()),
        ("PUT", "/uploads/", Hang(served=True)),
        ("PUT", "/uploads/", Status(502)),
        ("PUT", "/uploads/", Status(504)),
    ],
    ids=str,
)
def test_a_large_blob_arrives_although_an_answer_does_not(
    registry: Registry, repository: Repository, method: str, path: str, action: Action
) -> None:
    registry.faults.append(Fault(method, path, action))
    repository.upload(LARGE, Content())
    assert LARGE.digest in registry.repositories.blobs("app")
    lost = isinstance(action, Status | Hang) and method == "PATCH"
    assert sent(registry) <= SIZE + (CHUNK if lost else 0)
    assert [r.method for r in registry.requests].count("PUT") <= 2


def test_a_commit_without_an_answer_is_asked_about(
    registry: Registry, repository: Repository
) -> None:
    registry.faults.append(Fault("PUT", "/uploads/", LoseAnswer()))
    repository.upload(LARGE, Content())
    methods = [request.method for request in registry.requests]
    assert methods[-2:] == ["PUT", "HEAD"]


def test_a_session_that_expired_is_begun_anew(registry: Registry, repository: Repository) -> None:
    registry.faults.append(Fault("PATCH", "_state=0", Status(404)))
    registry.faults.append(Fault("PUT", "/uploads/", Status(404)))
    repository.upload(LARGE, Content())
    assert LARGE.digest in registry.repositories.blobs("app")
    assert [r.method for r in registry.requests].count("POST") == 2


def test_chunks_out_of_order_make_it_ask(registry: Registry, repository: Repository) -> None:
    registry.faults.append(Fault("PATCH", f"_state={CHUNK}", Status(416)))
    repository.upload(LARGE, Content())
    assert [r.method for r in registry.requests].count("GET") == 1
    assert LARGE.digest in registry.repositories.blobs("app")


def test_bodies_become_as_small_as_a_registry_wants(
    registry: Registry, repository: Repository
) -> None:
    registry.repositories.uploads.most = 100 * KIB
    repository.upload(LARGE, Content())
    assert LARGE.digest in registry.repositories.blobs("app")
    registry.requests.clear()
    half = Descriptor("application/octet-stream", Digest.of(CONTENT[: SIZE // 4]), SIZE // 4)
    repository.upload(half, Content())
    assert half.digest in registry.repositories.blobs("app")
    assert max(r.received for r in registry.requests if r.status == 202) <= 100 * KIB


def test_a_registry_that_takes_no_body_is_not_asked_for_ever(
    registry: Registry, repository: Repository
) -> None:
    registry.repositories.uploads.most = 100
    with pytest.raises(RegistryError, match="HTTP 413"):
        repository.upload(LARGE, Content())
    assert len(registry.requests) < 12


@pytest.mark.parametrize("status", [400, 405, 411, 413, 416, 422])
def test_one_piece_that_is_refused_goes_in_chunks(
    registry: Registry, repository: Repository, status: int
) -> None:
    registry.faults.append(Fault("PUT", "/uploads/", Status(status)))
    repository.upload(SMALL, Content())
    assert SMALL.digest in registry.repositories.blobs("app")
    assert [m for m, _ in steps(registry)] == ["POST", "PUT", "POST", "PATCH", "PUT"]


def test_chunks_are_as_large_as_a_registry_wants(
    registry: Registry, repository: Repository
) -> None:
    registry.repositories.uploads.least = 400 * KIB
    repository.upload(LARGE, Content())
    chunks = [r.received for r in registry.requests if r.method == "PATCH"]
    assert all(size >= 400 * KIB for size in chunks[:-1])


def test_what_arrived_wrong_is_sent_once_more(registry: Registry, repository: Repository) -> None:
    registry.faults.append(Fault("PATCH", "/uploads/", Drop(1000)))
    registry.faults.append(Fault("PUT", "/uploads/", Status(400, {}, INVALID)))
    repository.upload(LARGE, Content())
    assert LARGE.digest in registry.repositories.blobs("app")
    assert sent(registry) == 2 * SIZE


@pytest.mark.parametrize("descriptor", [SMALL, LARGE], ids=["small", "large"])
def test_bytes_that_arrive_late_cost_one_turn_more(
    registry: Registry, repository: Repository, descriptor: Descriptor
) -> None:
    """Asked too early, the registry still has to write what came before the connection broke."""
    registry.faults.append(Fault("PUT|PATCH", "/uploads/", Drop(1000)))
    registry.faults.append(Fault("GET", "/uploads/", Status(204, {"Range": "0-0"})))
    repository.upload(descriptor, Content())
    assert descriptor.digest in registry.repositories.blobs("app")


def test_what_is_wrong_is_not_sent_again(registry: Registry, repository: Repository) -> None:
    wrong = Descriptor("application/octet-stream", SMALL.digest, SIZE)
    with pytest.raises(RegistryError, match="DIGEST_INVALID"):
        repository.upload(wrong, Content())
    assert sent(registry) == SIZE


@pytest.mark.parametrize(
    ("method", "action", "error"),
    [
        ("PATCH", Status(202, {"Range": f"0-{SIZE}"}), InvalidContent),
        ("PATCH", Status(202, {"Range": "nonsense"}), InvalidContent),
        ("PATCH", Status(202, {"Range": "0-9", "Location": "ftp://x/"}), InvalidContent),
        ("PATCH", Status(202, {"Range": "0-9"}), InvalidContent),
        ("PATCH", Status(403), RegistryError),
        ("PATCH", Status(404), RegistryError),
        ("PATCH", Status(416), RegistryError),
        ("PATCH", Drop(0), RegistryUnavailable),
        ("PATCH", Hang(), RegistryUnavailable),
        ("PUT", Status(404), RegistryError),
        ("PUT", Status(400, {}, INVALID), RegistryError),
    ],
    ids=str,
)
def test_a_registry_that_misbehaves_gives_one_error_after_few_requests(
    registry: Registry,
    repository: Repository,
    method: str,
    action: Action,
    error: type[OcistowError],
) -> None:
    registry.faults.append(Fault(method, "/uploads/", action, times=None))
    with pytest.raises(error) as raised:
        repository.upload(LARGE, Content())
    assert "\n" not in str(raised.value)
    assert len(registry.requests) < 25
    assert LARGE.digest not in registry.repositories.blobs("app")


MISHAPS = st.builds(
    Fault,
    st.sampled_from(["POST", "PATCH", "PUT", "GET", "HEAD", "PUT|PATCH"]),
    st.just("/blobs/"),
    st.one_of(
        st.builds(Drop, st.integers(0, 2 * CHUNK)),
        st.just(LoseAnswer()),
        st.sampled_from([400, 404, 405, 413, 416, 429, 500, 503]).map(Status),
    ),
    st.integers(1, 2),
)


@settings(max_examples=60)
@given(mishaps=st.lists(MISHAPS, max_size=4), large=st.booleans())
def test_whatever_happens_the_blob_is_there_or_one_error(
    registry: Registry, mishaps: list[Fault], *, large: bool
) -> None:
    descriptor = LARGE if large else SMALL
    registry.repositories.clear()
    registry.requests.clear()
    registry.faults.clear()
    for mishap in mishaps:
        registry.faults.append(mishap)
    endpoint = Endpoint(registry.host, plain_http=True)
    with Transport(endpoint, Access(), lambda _: None) as transport:
        repository = Repository(transport, "app")
        with suppress(RegistryError):
            repository.upload(descriptor, Content())
            registry.faults.clear()
            assert repository.has_blob(descriptor.digest)
    assert len(registry.requests) < 2 * SIZE // LEAST  # as many chunks as there can be, and some
    assert sent(registry) <= 8 * descriptor.size


# Uploads that outlive their process.

INTERRUPTED = """
import sys
from pathlib import Path
from ocistow.oci.digest import Digest
from ocistow.publish.distribution.transport import Transport
from ocistow.publish.provenance import UploadSessions
from ocistow.store.index.database import IndexDatabase
from ocistow.store.index.uploads import Uploads
database, host, digest, url = sys.argv[1:]
UploadSessions(Uploads(IndexDatabase(Path(database))), host, "app").note(Digest.parse(digest), url)
"""


@pytest.fixture
def left(registry: Registry, repository: Repository, database: Path) -> Registry:
    """Have a process that died leave a session with the first 300,000 bytes."""
    leave(registry, database, CONTENT[:300_000])
    registry.requests.clear()
    return registry


def leave(registry: Registry, database: Path, content: bytes) -> None:
    begun = requests.post(f"{registry.url}/v2/app/blobs/uploads/", timeout=10)
    url = requests.patch(begun.headers["Location"], content, timeout=10).headers["Location"]
    arguments = [str(database), registry.host, str(LARGE.digest), url]
    subprocess.run([sys.executable, "-c", INTERRUPTED, *arguments], check=True)


def test_the_session_of_a_dead_process_is_taken_up(
    left: Registry, repository: Repository, sessions: UploadSessions
) -> None:
    repository.upload(LARGE, Content(), sessions=sessions)
    assert LARGE.digest in left.repositories.blobs("app")
    assert steps(left)[0] == ("GET", 0)
    assert sent(left) == SIZE - 300_000
    assert sessions.take(LARGE.digest) is None


def test_a_session_that_the_registry_forgot_is_begun_anew(
    left: Registry, repository: Repository, sessions: UploadSessions
) -> None:
    left.repositories.clear()
    left.faults.append(Fault("GET", "/uploads/", Status(404)))
    repository.upload(LARGE, Content(), sessions=sessions)
    assert LARGE.digest in left.repositories.blobs("app")
    assert sent(left) == SIZE


@pytest.mark.parametrize("content", [bytes(300_000), bytes(SIZE), bytes(SIZE + 1)])
def test_a_session_with_other_bytes_costs_one_turn_more(
    registry: Registry,
    repository: Repository,
    database: Path,
    sessions: UploadSessions,
    content: bytes,
) -> None:
    leave(registry, database, content)
    repository.upload(LARGE, Content(), sessions=sessions)
    assert LARGE.digest in registry.repositories.blobs("app")


def test_an_upload_that_failed_is_taken_up_later(
    registry: Registry, repository: Repository, sessions: UploadSessions
) -> None:
    registry.faults.append(Fault("PATCH", f"_state={CHUNK}", Status(403)))
    with pytest.raises(RegistryError):
        repository.upload(LARGE, Content(), sessions=sessions)
    registry.requests.clear()
    repository.upload(LARGE, Content(), sessions=sessions)
    assert sent(registry) == SIZE - CHUNK


def test_small_blobs_leave_no_trace(
    registry: Registry, repository: Repository, sessions: UploadSessions, database: Path
) -> None:
    repository.upload(SMALL, Content(), sessions=sessions)
    assert not database.exists()


def test_a_database_that_fails_stops_no_upload(
    registry: Registry,
    repository: Repository,
    sessions: UploadSessions,
    database: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (database / "full").mkdir(parents=True)  # which nobody may remove
    repository.upload(LARGE, Content(), sessions=sessions)
    assert LARGE.digest in registry.repositories.blobs("app")
    assert caplog.text.count("not remembered") >= 2
