"""How far a copy is: a bar on a terminal, JSON lines for programs, silence otherwise."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Self, TextIO

from .output import human

if TYPE_CHECKING:
    from ..oci.descriptor import Descriptor
    from ..oci.digest import Digest
    from ..oci.platform import Platform
    from ..publish.sink import Action, Image, Sink
    from ..publish.source import Source

DELAY = 1.0  # seconds; what is done sooner needs no bar
INTERVAL = {"bar": 0.1, "json": 0.5}  # seconds between two reports at least
_WIDTH = 30  # characters of the bar
_CLEAR = "\r\x1b[K"


class Progress:
    """The bytes of one copy that are there, reported on stderr now and then.

    Called by several threads at once with a blob and the bytes of it that are
    done. Leaving the block removes the bar, or writes the last JSON line.
    """

    def __init__(
        self,
        mode: str,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream or sys.stderr
        if mode == "auto":
            mode = "bar" if self._stream.isatty() else "none"
        self._mode = mode
        self._clock = clock
        self._next = clock() + (DELAY if mode == "bar" else 0)
        self._lock = threading.Lock()
        self._done: dict[Digest, int] = {}
        self._sum = 0
        self._drawn = False
        self.total = 0

    def __call__(self, descriptor: Descriptor, done: int) -> None:
        """Note that `done` bytes of a blob are there."""
        if self._mode == "none":
            return
        with self._lock:
            self._sum += done - self._done.get(descriptor.digest, 0)
            self._done[descriptor.digest] = done
            if self._clock() >= self._next:
                self._next = self._clock() + INTERVAL[self._mode]
                self._report()

    def watching(self, sink: Sink) -> Sink:
        """Return `sink`, made to tell how many bytes there will be."""
        return _Announcing(sink, self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._mode == "json" and self.total:
            self._report()
        if self._drawn:
            self._write(_CLEAR)

    def _report(self) -> None:
        if self._mode == "json":
            members = {"type": "progress", "done": self._sum, "total": self.total}
            self._write(json.dumps(members) + "\n")
            return
        share = min(1.0, self._sum / self.total) if self.total else 0.0
        bar = "#" * round(share * _WIDTH)
        self._write(
            f"{_CLEAR}[{bar:-<{_WIDTH}}] {share:4.0%}  {human(self._sum)} of {human(self.total)}"
        )
        self._drawn = True

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class _Announcing:
    """A sink that tells a progress the size of the image."""

    def __init__(self, sink: Sink, progress: Progress) -> None:
        self._sink = sink
        self._progress = progress
        self.sparse = sink.sparse

    def platform(self) -> Platform | None:
        return self._sink.platform()

    def begin(self, image: Image) -> None:
        self._progress.total = sum(node.descriptor.size for node in image.nodes)
        self._sink.begin(image)

    def has(self, descriptor: Descriptor) -> bool:
        return self._sink.has(descriptor)

    def put_blob(self, descriptor: Descriptor, source: Source) -> Action:
        return self._sink.put_blob(descriptor, source)

    def put_manifest(self, descriptor: Descriptor, raw: bytes) -> None:
        self._sink.put_manifest(descriptor, raw)

    def tag(self, root: Descriptor) -> None:
        self._sink.tag(root)

    def losses(self) -> Sequence[str]:
        return self._sink.losses()
