"""Uploads to an in-process registry; distribution-spec, "Pushing Blobs"."""

from __future__ import annotations

import hashlib
import re
import threading
import uuid
from http import HTTPStatus
from pathlib import Path

from ..oci.digest import Digest
from .exchange import Answer, Call, Refused


class Uploads:
    """What there is of blobs that are not complete, in files under `directory`.

    Each belongs to a repository: others do not know it.
    Thread-safe, except that a client must not send to one upload twice at once.
    `url` starts the Location headers; it may be empty.

    Attributes:
        least: bytes of the smallest chunk, as announced; 0 is not announced.
        most: bytes of the largest body; others are refused unread.
    """

    def __init__(self, directory: Path, url: str) -> None:
        self.least = 0
        self.most: int | None = None
        self._directory = directory
        self._url = url
        self._lock = threading.Lock()
        self._repositories: dict[str, str] = {}  # of each identifier

    def start(self, name: str) -> str:
        """Begin an upload to a repository and return its identifier."""
        identifier = str(uuid.uuid4())
        self._file(identifier).touch()
        with self._lock:
            self._repositories[identifier] = name
        return identifier

    def finish(self, call: Call, name: str, identifier: str, digest: Digest) -> Path:
        """Take what is left and return the file of the whole blob, which is the caller's.

        Raises:
            Refused: there is no such upload, or it is something else.
        """
        self._receive(call, name, identifier)
        blob = self._file(identifier)
        with blob.open("rb") as file:
            actual = hashlib.file_digest(file, digest.algorithm).hexdigest()
        with self._lock:
            del self._repositories[identifier]
        if actual != digest.encoded:
            blob.unlink()
            raise Refused(HTTPStatus.BAD_REQUEST, "DIGEST_INVALID", f"content has {actual}")
        return blob

    def status(self, _: Call, name: str, identifier: str) -> Answer:
        """Tell how far an upload is."""
        self._check(name, identifier)
        return self.progress(HTTPStatus.NO_CONTENT, name, identifier)

    def append(self, call: Call, name: str, identifier: str) -> Answer:
        """Take a chunk."""
        self._receive(call, name, identifier)
        return self.progress(HTTPStatus.ACCEPTED, name, identifier)

    def cancel(self, _: Call, name: str, identifier: str) -> Answer:
        """Forget an upload."""
        self._check(name, identifier)
        with self._lock:
            del self._repositories[identifier]
        self._file(identifier).unlink()
        return Answer(HTTPStatus.NO_CONTENT)

    def progress(self, status: HTTPStatus, name: str, identifier: str) -> Answer:
        """Return the answer that says how far an upload is and where it goes on."""
        size = self._file(identifier).stat().st_size
        headers = {
            # a query of its own, as distribution and ECR have it: digest= must join it
            "Location": f"{self._url}/v2/{name}/blobs/uploads/{identifier}?_state={size}",
            "Range": f"0-{max(size - 1, 0)}",  # distribution's answer for no bytes, too
            "Docker-Upload-UUID": identifier,
        }
        if self.least:
            headers["OCI-Chunk-Min-Length"] = str(self.least)
        return Answer(status, headers)

    def _receive(self, call: Call, name: str, identifier: str) -> None:
        self._check(name, identifier)
        if self.most is not None and int(call.headers.get("Content-Length", 0)) > self.most:
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            raise Refused(status, "SIZE_INVALID", f"more than {self.most} bytes")
        with self._file(identifier).open("ab", buffering=0) as file:
            match = re.fullmatch(r"(\d+)-(\d+)", call.headers.get("Content-Range", ""))
            if match is not None and int(match[1]) != file.tell():
                status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
                raise Refused(status, "BLOB_UPLOAD_INVALID", f"next byte is {file.tell()}")
            for data in call.body:
                file.write(data)

    def _check(self, name: str, identifier: str) -> None:
        if self._repositories.get(identifier) != name:
            raise Refused(HTTPStatus.NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", identifier)

    def _file(self, identifier: str) -> Path:
        return self._directory / f"upload-{identifier}"
