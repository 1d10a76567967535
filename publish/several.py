"""Copying one image to several places at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

from ..oci.errors import OcistowError
from ..store.leases import Leases
from .access import JOBS
from .copy import Copied, Progress, copy
from .crew import GRACE, Crew
from .sink import Sink
from .source import Source


@dataclass(frozen=True, slots=True)
class Place:
    """Where to copy to.

    Attributes:
        open: opens the sink, in the thread that copies to it.
        ends: hears at once what came of it, also when another is interrupted later; what
            closing the sink raises comes after what was copied.
        progress: hears how far that copy is.
    """

    open: Callable[[], AbstractContextManager[Sink]]
    ends: Callable[[Copied | OcistowError | OSError], None]
    progress: Progress | None = None


def copy_to_each(
    source: Source, places: Sequence[Place], *, jobs: int = JOBS, leases: Leases | None = None
) -> None:
    """Copy the image of `source` to every place at once.

    All read the blobs in the same order, so that each comes from the disk once. At
    most `jobs` blobs are under way over all. One that fails does not stop the others.
    """
    crew = Crew(jobs)
    bugs: list[BaseException] = []

    def serve(place: Place) -> None:
        try:
            with place.open() as sink:
                place.ends(copy(source, sink, crew=crew, progress=place.progress, leases=leases))
        except (OcistowError, OSError) as error:
            place.ends(error)

    def guarded(place: Place) -> None:
        try:
            serve(place)
        except BaseException as error:  # raised below, in the thread that asked
            bugs.append(error)

    if len(places) == 1:
        serve(places[0])  # here, where an interrupt wakes it at once
    else:
        crew.work([partial(guarded, place) for place in places], grace=2 * GRACE)
    for bug in bugs:
        raise bug
