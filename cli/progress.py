"""How far copies are: bars on a terminal, JSON lines for programs, silence otherwise."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, Self, TextIO, cast

from .output import has_colours, human
from .track import Track

if TYPE_CHECKING:
    from ..oci.descriptor import Descriptor
    from ..oci.digest import Digest
    from ..publish.copy import Progress
    from ..publish.sink import Action, Image
    from ..publish.source import Watch
    from .bars import Screen

DELAY = 1.0  # seconds; what is done sooner needs no bar
DRAWING = 0.1  # seconds between two frames
LINES = 0.5  # seconds between two JSON lines about the same thing, at least
_UP, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[{}A", "\x1b[K", "\x1b[J"


class Display:
    """Shows on stderr how far one or several copies are. Thread-safe.

    Leaving the block takes the bars away.
    """

    def __init__(
        self,
        mode: str,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream or sys.stderr
        if mode == "auto":
            mode = "bar" if is_terminal(self._stream) else "none"
        self._shown: _Bars | _Lines | None = None
        if mode == "bar":
            self._shown = _Bars(self._stream, clock)
        elif mode == "json":
            self._shown = _Lines(self._stream, clock)

    def track(self, title: str) -> Progress | None:
        """Return what hears how far one copy is; None where nobody wants to know."""
        return self._shown.track(title) if self._shown is not None else None

    def amount(self, title: str, noun: str = "") -> Amount | None:
        """Return what hears how much of something is done that is no copy; None likewise.

        With a `noun`, in the plural, it is so many of these, and else bytes.
        """
        return self._shown.amount(title, noun) if self._shown is not None else None

    def __enter__(self) -> Self:
        if isinstance(self._shown, _Bars):
            self._shown.start()
        return self

    def __exit__(self, *_: object) -> None:
        if isinstance(self._shown, _Bars):
            self._shown.end()


def reading(progress: Progress | None, clock: Callable[[], float] = time.monotonic) -> Watch:
    """Return what hears how much was read of an image that is not known yet, and says it."""
    said = clock()

    def watch(done: int) -> None:
        nonlocal said
        if progress is not None and clock() - said >= LINES:
            said = clock()
            progress.stage(f"reading the image, {human(done)}")

    return watch


def is_terminal(stream: TextIO) -> bool:
    """Tell whether bars can be drawn over each other."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


class Amount:
    """Notes how much of something is done. Thread-safe."""

    def __init__(
        self,
        track: Track,
        lock: threading.Lock,
        clock: Callable[[], float],
        write: Callable[[dict[str, object]], None] | None = None,
    ) -> None:
        self._track = track
        self._lock = lock
        self._clock = clock
        self._write = write
        self._said = clock()

    def begins(self, total: int) -> None:
        """Note how many there are."""
        with self._lock:
            self._track.total = total

    def moves(self, count: int) -> None:
        """Note that some more are done."""
        with self._lock:
            now = self._clock()
            self._track.advances(count, now)
            track = self._track
            is_due = track.done >= track.total or now - self._said >= LINES
            if self._write is not None and is_due:
                self._said = now
                self._write(_whole(track))

    def stage(self, what: str) -> None:
        """Note what is done now."""
        with self._lock:
            self._track.what = what
            if self._write is not None:
                self._write(_stage(self._track))


def _whole(track: Track) -> dict[str, object]:
    return {
        "type": "progress",
        "name": track.title,
        "done": track.done,
        "total": track.total,
        **({"unit": track.noun} if track.noun else {}),
    }


def _stage(track: Track) -> dict[str, object]:
    return {"type": "stage", "name": track.title, "what": track.what}


class _Bars:
    """A thread that draws what other threads noted."""

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        self._stream = stream
        self._clock = clock
        self._lock = threading.Lock()
        self._tracks: list[Track] = []
        self._drawn = 0  # lines above the cursor
        self._ended = threading.Event()
        self._began = clock()
        self._thread = threading.Thread(target=self._run, name="bars", daemon=True)
        self._handlers: list[logging.StreamHandler[_Writable]] = []

    def track(self, title: str) -> Progress:
        track = Track(title, self._clock())
        with self._lock:
            self._tracks.append(track)
        return _Heard(track, self._lock, self._clock)

    def amount(self, title: str, noun: str) -> Amount:
        track = Track(title, self._clock(), what="looking", noun=noun)
        with self._lock:
            self._tracks.append(track)
        return Amount(track, self._lock, self._clock)

    def start(self) -> None:
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler):
                # isinstance cannot tell what it writes to
                streaming = cast("logging.StreamHandler[_Writable]", handler)
                if streaming.stream is self._stream:
                    streaming.setStream(_Above(self, self._stream))
                    self._handlers.append(streaming)
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()
        self.erase()
        for handler in self._handlers:
            handler.setStream(self._stream)

    def erase(self) -> None:
        """Take the bars away until the next frame."""
        with self._lock:
            if self._drawn:
                self._write(f"\r{_UP.format(self._drawn)}{_CLEAR_BELOW}")
                self._drawn = 0

    def _run(self) -> None:
        if not self._ended.wait(DELAY):
            self._draw()
        while not self._ended.wait(DRAWING):
            self._draw()

    def _draw(self) -> None:
        from .bars import frame

        with self._lock:
            lines = frame(self._tracks, _screen(self._stream), self._clock())
            up = _UP.format(self._drawn) if self._drawn else ""
            text = "".join(f"{line}{_CLEAR_LINE}\n" for line in lines)
            self._write(f"\r{up}{text}{_CLEAR_BELOW}")
            self._drawn = len(lines)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class _Writable(Protocol):
    """What a handler of logging writes to."""

    def write(self, text: str, /) -> object: ...

    def flush(self) -> None: ...


class _Above:
    """A stream whose lines appear above the bars."""

    def __init__(self, bars: _Bars, stream: TextIO) -> None:
        self._bars = bars
        self._stream = stream

    def write(self, text: str, /) -> object:
        self._bars.erase()
        return self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()


class _Heard:
    """Notes in a track what a copy's threads say."""

    def __init__(self, track: Track, lock: threading.Lock, clock: Callable[[], float]) -> None:
        self._track = track
        self._lock = lock
        self._clock = clock

    def begins(self, image: Image) -> None:
        with self._lock:
            self._track.total = sum(node.descriptor.size for node in image.nodes)

    def moves(self, descriptor: Descriptor, done: int) -> None:
        with self._lock:
            self._track.moves(descriptor, done, self._clock())

    def ends(self, descriptor: Descriptor, action: Action) -> None:
        with self._lock:
            self._track.ends(descriptor, action, self._clock())

    def stage(self, what: str) -> None:
        with self._lock:
            self._track.what = what


class _Lines:
    """JSON lines of all tracks."""

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        self._stream = stream
        self._clock = clock
        self._lock = threading.Lock()

    def track(self, title: str) -> Progress:
        return _Told(Track(title, self._clock()), self._write, self._lock, self._clock)

    def amount(self, title: str, noun: str) -> Amount:
        track = Track(title, self._clock(), noun=noun)
        return Amount(track, self._lock, self._clock, self._write)

    def _write(self, members: dict[str, object]) -> None:
        self._stream.write(json.dumps(members) + "\n")
        self._stream.flush()


class _Told:
    """Writes what a copy's threads say, blobs and the whole not too often."""

    def __init__(
        self,
        track: Track,
        write: Callable[[dict[str, object]], None],
        lock: threading.Lock,
        clock: Callable[[], float],
    ) -> None:
        self._track = track
        self._write = write
        self._lock = lock
        self._clock = clock
        self._said: dict[Digest | None, float] = {}

    def begins(self, image: Image) -> None:
        with self._lock:
            self._track.total = sum(node.descriptor.size for node in image.nodes)
            self._whole()

    def moves(self, descriptor: Descriptor, done: int) -> None:
        with self._lock:
            now = self._clock()
            self._track.moves(descriptor, done, now)
            if self._is_due(descriptor.digest, now):
                self._blob(descriptor, done, None)
            if self._is_due(None, now):
                self._whole()

    def ends(self, descriptor: Descriptor, action: Action) -> None:
        with self._lock:
            self._track.ends(descriptor, action, self._clock())
            self._blob(descriptor, descriptor.size, action)
            if self._track.done == self._track.total:
                self._whole()

    def stage(self, what: str) -> None:
        with self._lock:
            self._track.what = what
            self._write(_stage(self._track))

    def _is_due(self, digest: Digest | None, now: float) -> bool:
        if now - self._said.get(digest, -LINES) < LINES:
            return False
        self._said[digest] = now
        return True

    def _blob(self, descriptor: Descriptor, done: int, action: Action | None) -> None:
        members: dict[str, object] = {
            "type": "blob",
            "name": self._track.title,
            "digest": str(descriptor.digest),
            "done": done,
            "total": descriptor.size,
        }
        self._write(members if action is None else {**members, "action": str(action)})

    def _whole(self) -> None:
        self._write(_whole(self._track))


def _screen(stream: TextIO) -> Screen:
    from .bars import Screen

    try:
        columns, rows = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        columns, rows = 80, 24
    unicode = (stream.encoding or "").lower().replace("-", "") == "utf8"
    return Screen(columns or 80, rows or 24, unicode, has_colours(stream))
