"""Copying one image to several places at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
        progress: hears how far that copy is.
    """

    open: Callable[[], AbstractContextManager[Sink]]
    progress: Progress | None = None


def copy_to_each(
    source: Source, places: Sequence[Place], *, jobs: int = JOBS, leases: Leases | None = None
) -> list[Copied | OcistowError | OSError]:
    """Copy the image of `source` to every place at once; return what came of each, in their order.

    All read the blobs in the same order, so that each comes from the disk once. At
    most `jobs` blobs are under way over all. One that fails does not stop the others.
    """
    crew = Crew(jobs)
    results: dict[int, Copied | OcistowError | OSError] = {}
    bugs: list[BaseException] = []

    def serve(number: int, place: Place) -> None:
        try:
            with place.open() as sink:
                results[number] = copy(
                    source, sink, crew=crew, progress=place.progress, leases=leases
                )
        except (OcistowError, OSError) as error:
            results[number] = error

    def guarded(number: int, place: Place) -> None:
        try:
            serve(number, place)
        except BaseException as error:  # raised below, in the thread that asked
            bugs.append(error)

    if len(places) == 1:
        serve(0, places[0])  # here, where an interrupt wakes it at once
    else:
        crew.work(_each(guarded, places), grace=2 * GRACE)
    for bug in bugs:
        raise bug
    return [results[number] for number in range(len(places))]


def _each(serve: Callable[[int, Place], None], places: Iterable[Place]) -> list[Callable[[], None]]:
    return [partial(serve, number, place) for number, place in enumerate(places)]
