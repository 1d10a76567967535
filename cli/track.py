"""How far one copy is, as plain numbers."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..publish.sink import Action

WINDOW = 5.0  # seconds over which the rate is measured
STILL = 1.0  # seconds without a byte after which one may ask what is awaited


@dataclass(slots=True)
class Running:
    """A blob some of which is there."""

    descriptor: Descriptor
    done: int = 0


@dataclass(slots=True)
class Track:
    """The numbers of one copy. Not thread-safe.

    Attributes:
        title: where it goes, or where it comes from.
        began: when, on the clock of all other times here.
        total: bytes of the image; 0 before it is known.
        done: bytes that are there.
        counts: blobs and manifests that ended, by what was done about them.
        running: blobs some of which is there, in the order in which they began.
        what: what it does now.
        moved: when something was done last.
        noun: of what is counted; without one, it is bytes.
    """

    title: str
    began: float
    total: int = 0
    done: int = 0
    counts: Counter[Action] = field(default_factory=lambda: Counter[Action]())
    running: dict[Digest, Running] = field(default_factory=lambda: dict[Digest, Running]())
    what: str = "opening the image"
    noun: str = ""
    moved: float = 0.0
    _steps: deque[tuple[float, int]] = field(default_factory=lambda: deque[tuple[float, int]]())

    def __post_init__(self) -> None:
        self.moved = self.began

    def moves(self, descriptor: Descriptor, done: int, now: float) -> None:
        """Note that `done` bytes of a blob are there."""
        blob = self.running.setdefault(descriptor.digest, Running(descriptor))
        step = done - blob.done
        blob.done = done
        self.done += step
        self.moved = now
        if step > 0:
            self._steps.append((now, step))

    def advances(self, step: int, now: float) -> None:
        """Note that some more is done, of whatever."""
        self.done += step
        self.moved = now
        self._steps.append((now, step))

    def ends(self, descriptor: Descriptor, action: Action, now: float) -> None:
        """Note that a blob is done with."""
        blob = self.running.pop(descriptor.digest, None)
        self.done += descriptor.size - (blob.done if blob else 0)
        self.counts[action] += 1
        self.moved = now

    def rate(self, now: float) -> float:
        """Return the bytes a second that moved lately."""
        while self._steps and self._steps[0][0] < now - WINDOW:
            self._steps.popleft()
        seconds = min(WINDOW, now - self.began)
        return sum(step for _, step in self._steps) / seconds if seconds > 0 else 0.0

    def is_still(self, now: float) -> bool:
        """Tell whether nothing has moved for a while."""
        return now - self.moved >= STILL
