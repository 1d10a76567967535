"""Repositories of an in-process registry, and the distribution-spec's endpoints over them."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import NotRequired, TypedDict

from ..oci.digest import Digest
from ..oci.errors import InvalidContent
from .exchange import Answer, Call, FileSlice, Refused
from .images import REF_NAME
from .uploads import Uploads

MAX_MANIFEST = 4 << 20  # bytes; distribution-spec, "Pushing Manifests": at least that much
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"

_WORD = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_WORD}(?:/{_WORD})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")


class _Entry(TypedDict):
    """A descriptor inside a manifest."""

    mediaType: str
    digest: str
    size: int
    urls: NotRequired[list[str]]
    annotations: NotRequired[dict[str, str]]


class _Document(TypedDict, total=False):
    """What is read of a manifest or an index; anything may be missing."""

    mediaType: str
    artifactType: str
    config: _Entry
    layers: list[_Entry]
    manifests: list[_Entry]
    subject: _Entry
    annotations: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Manifest:
    media_type: str
    body: bytes
    document: _Document


@dataclass(frozen=True, slots=True)
class _Repository:
    blobs: set[Digest] = field(default_factory=set[Digest])
    manifests: dict[Digest, _Manifest] = field(default_factory=dict[Digest, _Manifest])
    tags: dict[str, Digest] = field(default_factory=dict[str, Digest])


_Endpoint = Callable[[Call, str, str], Answer]


class Repositories:
    """Blobs, manifests and tags in memory and under `directory`.

    Blobs belong to a repository: another one has them only after a mount.
    As thread-safe as its uploads. `url` starts the Location headers; it may be empty.

    Attributes:
        uploads: of blobs, as long as they are not complete.
        lists: whether referrers are listed, which distribution 2.8 does not do.
        page: how many of them one answer lists.
    """

    def __init__(self, directory: Path, url: str) -> None:
        self.uploads = Uploads(directory, url)
        self.lists = True
        self.page = 100
        self._directory = directory
        self._url = url
        self._lock = threading.Lock()
        self._repositories: dict[str, _Repository] = {}
        self._routes: list[tuple[re.Pattern[str], Mapping[str, _Endpoint]]] = [
            (re.compile(pattern), endpoints)
            for pattern, endpoints in (
                (r"/v2/(.+)/blobs/uploads/?()", {"POST": self._start}),
                (
                    r"/v2/(.+)/blobs/uploads/([^/]+)",
                    {
                        "GET": self.uploads.status,
                        "PATCH": self.uploads.append,
                        "PUT": self._finish,
                        "DELETE": self.uploads.cancel,
                    },
                ),
                (r"/v2/(.+)/blobs/([^/]+)", {"GET": self._blob}),
                (r"/v2/(.+)/manifests/([^/]+)", {"GET": self._manifest, "PUT": self._put}),
                (r"/v2/(.+)/tags/list()", {"GET": self._list}),
                (r"/v2/(.+)/referrers/([^/]+)", {"GET": self._referrers}),
            )
        ]

    def blobs(self, name: str) -> frozenset[Digest]:
        """Return the blobs of a repository; manifests are not among them."""
        return frozenset(self._at(name).blobs)

    def tags(self, name: str) -> dict[str, Digest]:
        """Return what each tag of a repository names."""
        return dict(self._at(name).tags)

    def tag(self, name: str, tag: str, digest: Digest) -> None:
        """Let a tag of a repository name a manifest."""
        self._at(name).tags[tag] = digest

    def blob(self, digest: Digest) -> bytes:
        """Return a blob as it was pushed to whatever repository."""
        return self._file(digest).read_bytes()

    def manifest(self, name: str, digest: Digest) -> bytes:
        """Return a manifest as it was pushed; KeyError if it was not."""
        return self._at(name).manifests[digest].body

    def delete(self, name: str, *digests: Digest) -> None:
        """Remove blobs from a repository, as if its garbage had been collected."""
        self._at(name).blobs.difference_update(digests)

    def clear(self) -> None:
        """Remove all repositories."""
        with self._lock:
            self._repositories.clear()

    def load(self, layout: Path, name: str) -> None:
        """Copy the images of an OCI image layout into a repository, with their tags.

        Layers that a sparse layout lacks stay unknown.
        """
        index: _Document = json.loads((layout / "index.json").read_bytes())
        for entry in index.get("manifests", []):
            digest = self._load_manifest(layout, name, entry)
            if tag := entry.get("annotations", {}).get(REF_NAME):
                self._at(name).tags[tag] = digest

    def _load_manifest(self, layout: Path, name: str, entry: _Entry) -> Digest:
        digest = Digest.parse(entry["digest"])
        body = _in_layout(layout, digest).read_bytes()
        document: _Document = json.loads(body)
        for child in document.get("manifests", []):
            self._load_manifest(layout, name, child)
        for child in _blobs_of(document):
            blob = Digest.parse(child["digest"])
            if (file := _in_layout(layout, blob)).exists():
                shutil.copyfile(file, self._file(blob))
                self._at(name).blobs.add(blob)
        self._at(name).manifests[digest] = _Manifest(entry["mediaType"], body, document)
        return digest

    def answer(self, call: Call) -> Answer:
        """Do what a request asks for.

        Raises:
            Refused: the specification has an error code for it.
        """
        if call.path in {"/v2/", "/v2"}:
            return Answer.of_json(
                HTTPStatus.OK, {}, {"Docker-Distribution-API-Version": "registry/2.0"}
            )
        method = "GET" if call.method == "HEAD" else call.method
        for pattern, endpoints in self._routes:
            if match := pattern.fullmatch(call.path):
                if _NAME.fullmatch(match[1]) is None:
                    raise Refused(HTTPStatus.BAD_REQUEST, "NAME_INVALID", match[1])
                if (endpoint := endpoints.get(method)) is None:
                    raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "UNSUPPORTED", call.method)
                return endpoint(call, match[1], match[2])
        raise Refused(HTTPStatus.NOT_FOUND, "UNSUPPORTED", call.path)

    def _blob(self, call: Call, name: str, reference: str) -> Answer:
        digest = _digest(reference)
        if digest not in self._at(name).blobs:
            raise Refused(HTTPStatus.NOT_FOUND, "BLOB_UNKNOWN", reference)
        path = self._file(digest)
        size = path.stat().st_size
        headers = {
            "Content-Type": "application/octet-stream",
            "Docker-Content-Digest": str(digest),
            "Accept-Ranges": "bytes",
        }
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", call.headers.get("Range", ""))
        if match is None:  # also another form of Range, which RFC 9110 14.2 lets us ignore
            return Answer(HTTPStatus.OK, headers, FileSlice(path, 0, size))
        start, stop = int(match[1]), min(int(match[2] or size), size - 1) + 1
        if start >= stop:
            headers["Content-Range"] = f"bytes */{size}"
            return Answer(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers)
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        return Answer(HTTPStatus.PARTIAL_CONTENT, headers, FileSlice(path, start, stop - start))

    def _start(self, call: Call, name: str, _: str) -> Answer:
        if "mount" in call.query:
            digest = _digest(call.query["mount"])
            if digest in self._at(call.query.get("from", "")).blobs:
                return self._add(name, digest)
        identifier = self.uploads.start(name)
        if "digest" in call.query:
            return self._finish(call, name, identifier)
        return self.uploads.progress(HTTPStatus.ACCEPTED, name, identifier)

    def _finish(self, call: Call, name: str, identifier: str) -> Answer:
        digest = _digest(call.query.get("digest", ""))
        self.uploads.finish(call, name, identifier, digest).replace(self._file(digest))
        return self._add(name, digest)

    def _add(self, name: str, digest: Digest) -> Answer:
        self._at(name).blobs.add(digest)
        return self._created(f"/v2/{name}/blobs/{digest}", digest)

    def _manifest(self, call: Call, name: str, reference: str) -> Answer:
        repository = self._at(name)
        if ":" in reference:
            digest = _digest(reference)
        elif (tagged := repository.tags.get(reference)) is not None:
            digest = tagged
        else:
            raise Refused(HTTPStatus.NOT_FOUND, "MANIFEST_UNKNOWN", reference)
        if (manifest := repository.manifests.get(digest)) is None:
            raise Refused(HTTPStatus.NOT_FOUND, "MANIFEST_UNKNOWN", reference)
        if manifest.media_type not in ",".join(call.headers.get_all("Accept", [])):
            # distribution 2.8 says so, too, and does not count "*/*"
            raise Refused(HTTPStatus.NOT_FOUND, "MANIFEST_UNKNOWN", "not in the Accept header")
        headers = {"Content-Type": manifest.media_type, "Docker-Content-Digest": str(digest)}
        return Answer(HTTPStatus.OK, headers, manifest.body)

    def _put(self, call: Call, name: str, reference: str) -> Answer:
        body = b""
        for data in call.body:
            body += data
            if len(body) > MAX_MANIFEST:
                status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
                raise Refused(status, "MANIFEST_INVALID", f"more than {MAX_MANIFEST} bytes")
        expected = _digest(reference) if ":" in reference else None
        algorithm = expected.algorithm if expected else "sha256"
        digest = Digest(algorithm, hashlib.new(algorithm, body).hexdigest())
        if expected not in {None, digest}:
            raise Refused(HTTPStatus.BAD_REQUEST, "DIGEST_INVALID", f"content has {digest}")
        if expected is None and _TAG.fullmatch(reference) is None:
            raise Refused(HTTPStatus.BAD_REQUEST, "TAG_INVALID", reference)
        manifest = self._checked(name, body, call.headers.get("Content-Type", ""))
        repository = self._at(name)
        repository.manifests[digest] = manifest
        if expected is None:
            repository.tags[reference] = digest
        subject = manifest.document.get("subject")
        created = self._created(f"/v2/{name}/manifests/{digest}", digest)
        headers = {"OCI-Subject": subject["digest"]} if subject and self.lists else {}
        return Answer(created.status, {**created.headers, **headers})

    def _checked(self, name: str, body: bytes, media_type: str) -> _Manifest:
        try:
            document: _Document = json.loads(body)
            inside = document.get("mediaType", media_type)
            manifests = {_digest(child["digest"]) for child in document.get("manifests", [])}
            blobs = {_digest(child["digest"]) for child in _blobs_of(document)}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Refused(HTTPStatus.BAD_REQUEST, "MANIFEST_INVALID", str(error)) from error
        if inside != media_type:
            detail = f"Content-Type {media_type}, mediaType {inside}"
            raise Refused(HTTPStatus.BAD_REQUEST, "MANIFEST_INVALID", detail)
        repository = self._at(name)
        for digest in (manifests - repository.manifests.keys()) | (blobs - repository.blobs):
            raise Refused(HTTPStatus.BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN", str(digest))
        return _Manifest(media_type, body, document)

    def _list(self, call: Call, name: str, _: str) -> Answer:
        if not self._at(name).manifests:
            raise Refused(HTTPStatus.NOT_FOUND, "NAME_UNKNOWN", name)
        tags = [tag for tag in sorted(self._at(name).tags) if tag > call.query.get("last", "")]
        page = tags[: int(call.query.get("n", len(tags)))]
        headers: dict[str, str] = {}
        if page != tags and page:
            headers["Link"] = f'</v2/{name}/tags/list?n={len(page)}&last={page[-1]}>; rel="next"'
        return Answer.of_json(HTTPStatus.OK, {"name": name, "tags": page}, headers)

    def _referrers(self, call: Call, name: str, reference: str) -> Answer:
        if not self.lists:
            raise Refused(HTTPStatus.NOT_FOUND, "UNSUPPORTED", call.path)
        subject, wanted = str(_digest(reference)), call.query.get("artifactType")
        entries: list[object] = []
        for digest, manifest in list(self._at(name).manifests.items()):
            document = manifest.document
            if "subject" not in document or document["subject"]["digest"] != subject:
                continue
            config = document.get("config", {"mediaType": ""})["mediaType"]
            kind = document.get("artifactType", config)
            if wanted in {None, kind}:
                entry = {
                    "mediaType": manifest.media_type,
                    "digest": str(digest),
                    "size": len(manifest.body),
                    "artifactType": kind,
                    "annotations": document.get("annotations", {}),
                }
                entries.append(entry)
        headers = {"Content-Type": INDEX_TYPE}
        first = int(call.query.get("first", 0))
        if len(entries) > first + self.page:
            headers["Link"] = f'<{call.path}?first={first + self.page}>; rel="next"'
        entries = entries[first : first + self.page]
        if wanted is not None:
            headers["OCI-Filters-Applied"] = "artifactType"
        index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries}
        return Answer.of_json(HTTPStatus.OK, index, headers)

    def _at(self, name: str) -> _Repository:
        with self._lock:
            return self._repositories.setdefault(name, _Repository())

    def _created(self, path: str, digest: Digest) -> Answer:
        headers = {"Location": f"{self._url}{path}", "Docker-Content-Digest": str(digest)}
        return Answer(HTTPStatus.CREATED, headers)

    def _file(self, digest: Digest) -> Path:
        return self._directory / f"{digest.algorithm}-{digest.encoded}"


def _digest(text: str) -> Digest:
    try:
        digest = Digest.parse(text)
    except InvalidContent as error:
        raise Refused(HTTPStatus.BAD_REQUEST, "DIGEST_INVALID", text) from error
    if digest.algorithm not in hashlib.algorithms_guaranteed:
        raise Refused(HTTPStatus.BAD_REQUEST, "DIGEST_INVALID", text)
    return digest


def _blobs_of(document: _Document) -> Iterator[_Entry]:
    """Yield the config and the layers that a registry must hold, so not those with URLs."""
    if "config" in document:
        yield document["config"]
    yield from (layer for layer in document.get("layers", []) if "urls" not in layer)


def _in_layout(layout: Path, digest: Digest) -> Path:
    return layout / "blobs" / digest.algorithm / digest.encoded
