"""An image of a registry, and the mirrors that may have it, too."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache

from ..oci.descriptor import Descriptor
from ..oci.errors import InvalidContent, NotFound, RegistryError
from ..oci.platform import Platform
from ..oci.reference import Reference
from ..store.index.locations import Locations
from .access import Access
from .distribution.hosts import open_place, pull_places
from .distribution.registries import Place
from .provenance import Provenance
from .registry import RegistrySource
from .source import Blob, Source

log = logging.getLogger(__name__)


class MirroredSource:
    """Mirrors of an image in their order, and then the image itself. Thread-safe.

    The first place that resolves the image serves it; for what that lacks, the next ones
    are asked. Each is opened when it is needed.
    """

    sparse = False

    def __init__(self, places: Sequence[Callable[[], Source]]) -> None:
        self._places = places

    def resolve(self) -> Descriptor:
        """Return what the image is at the first place that has it.

        Raises:
            NotFound: the last place does not have it either.
            RegistryError: the last place refuses.
        """
        while len(self._places) > 1:
            try:
                return self._places[0]().resolve()
            except (NotFound, RegistryError, InvalidContent) as error:
                log.warning("a mirror is passed over: %s", error)
                self._places = self._places[1:]
        return self._places[0]().resolve()

    def open(self, descriptor: Descriptor) -> Blob:
        """Open a manifest or blob at the first place that has it."""
        *mirrors, last = self._places
        for place in mirrors:
            try:
                return place().open(descriptor)
            except (NotFound, RegistryError, InvalidContent) as error:
                log.warning("a mirror is passed over: %s", error)
        return last().open(descriptor)


@contextmanager
def open_mirrored(
    reference: Reference, platform: Platform | None, access: Access, locations: Locations
) -> Generator[Source]:
    """Open an image of a registry, at its mirrors first; what is seen goes to `locations`."""
    seen: list[Provenance] = []
    with ExitStack() as stack:

        def opener(place: Place, reached: Access) -> Callable[[], Source]:
            @cache
            def source() -> Source:
                where = place.reference
                provenance = Provenance(locations, where.registry, where.repository)
                repository = stack.enter_context(open_place(place, reached))
                seen.append(provenance)
                return RegistrySource(repository, reference, platform, provenance)

            return source

        places = [opener(place, reached) for place, reached in pull_places(reference, access)]
        yield MirroredSource(places) if len(places) > 1 else places[0]()
    for provenance in seen:
        provenance.save()
