"""A request to a registry, what it asks, and its answer, apart from what they mean."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path

READ_SIZE = 1 << 20  # bytes held of a body at any time


@dataclass(slots=True)
class Request:
    """One request as it came; `received` and `status` grow while it is served.

    Attributes:
        path: path and query, still encoded.
        headers: looked up without regard to case.
        received: bytes of the body, without chunked framing.
        status: of the answer; None as long as there was none.
        head: bytes of the answer before its body.
        answered: bytes of the answer in all.
        ended: set when nothing of this changes any more, which a client may be ahead of.
    """

    method: str
    path: str
    headers: Message
    received: int = 0
    status: int | None = None
    head: int = 0
    answered: int = 0
    ended: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class Call:
    """One request, as far as the specification looks at it; `path` has no query."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Message
    body: Iterable[bytes]


@dataclass(frozen=True, slots=True)
class FileSlice:
    """A body that lies in a file."""

    path: Path
    start: int
    size: int

    def chunks(self) -> Iterator[bytes]:
        """Read the bytes, at most READ_SIZE at a time."""
        left = self.size
        with self.path.open("rb") as file:
            file.seek(self.start)
            while data := file.read(min(left, READ_SIZE)):
                left -= len(data)
                yield data


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back; the length of the body is not among the headers."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes | FileSlice = b""

    @classmethod
    def of_json(
        cls, status: int, content: object, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Return `content` as JSON; a Content-Type in `headers` counts."""
        own = {"Content-Type": "application/json", **(headers or {})}
        return cls(status, own, json.dumps(content).encode())

    @property
    def size(self) -> int:
        """The length of the body in bytes."""
        return len(self.body) if isinstance(self.body, bytes) else self.body.size

    def chunks(self) -> Iterator[bytes]:
        """Yield the body, in pieces that fit in memory; none is empty."""
        if isinstance(self.body, FileSlice):
            yield from self.body.chunks()
        elif self.body:
            yield self.body


class Refused(Exception):
    """A request that gets an error code of the distribution-spec, "Error Codes"."""

    def __init__(
        self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, code, detail, headers)
        self.status, self.code, self.detail = status, code, detail
        self.headers = headers

    def answer(self) -> Answer:
        """Return the answer that says so."""
        message = self.code.lower().replace("_", " ")
        error = {"code": self.code, "message": message, "detail": self.detail}
        return Answer.of_json(self.status, {"errors": [error]}, self.headers)
