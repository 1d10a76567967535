"""Mirrors: the next place is asked when one fails, whatever the failure."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ocistow.oci.descriptor import Descriptor
from ocistow.oci.errors import (
    InvalidContent,
    NotFound,
    OcistowError,
    RegistryError,
    RegistryUnavailable,
)
from ocistow.oci.reference import Reference
from ocistow.publish.access import Access
from ocistow.publish.copy import copy
from ocistow.publish.distribution.hosts import pull_places
from ocistow.publish.layout import LayoutSource, StoreSink
from ocistow.publish.mirrors import MirroredSource
from ocistow.publish.source import Blob, Source
from ocistow.store.store import Store
from ocistow.testing.images import GeneratedImage

NAME = Reference.parse("example.org/app:1")
FAILURES = [
    NotFound("it"),
    InvalidContent("it is broken"),
    RegistryError("it", 401),
    RegistryUnavailable("it", 0),
]


class Failing(LayoutSource):
    """A place that fails when it is asked for the image, or when for a blob of it."""

    def __init__(self, path: Path, resolve: OcistowError | None, blob: OcistowError | None) -> None:
        super().__init__(path)
        self._resolve, self._blob = resolve, blob
        self.opened = 0

    def resolve(self) -> Descriptor:
        if self._resolve is not None:
            raise self._resolve
        return super().resolve()

    def open(self, descriptor: Descriptor) -> Blob:
        self.opened += 1
        if self._blob is not None and not descriptor.is_manifest:
            raise self._blob
        return super().open(descriptor)


def mirrored(*places: Source) -> MirroredSource:
    def opener(place: Source) -> Callable[[], Source]:
        return lambda: place

    return MirroredSource([opener(place) for place in places])


@pytest.mark.parametrize("failure", FAILURES)
def test_the_next_place_has_the_image(
    store: Store, image: GeneratedImage, failure: OcistowError, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = Failing(image.path, failure, None), Failing(image.path, None, None)
    last = Failing(image.path, RegistryError("not asked", 500), None)
    copied = copy(mirrored(first, second, last), StoreSink(store, NAME))
    assert (copied.root.digest, copied.sent) == (image.manifest, 5)
    assert (first.opened, last.opened) == (0, 0)
    assert caplog.text.count("a mirror is passed over: it") == 1


@pytest.mark.parametrize("failure", FAILURES)
def test_the_next_place_has_what_a_mirror_lacks(
    store: Store, image: GeneratedImage, failure: OcistowError
) -> None:
    first, last = Failing(image.path, None, failure), Failing(image.path, None, None)
    assert copy(mirrored(first, last), StoreSink(store, NAME)).root.digest == image.manifest
    assert last.opened == 4


@pytest.mark.parametrize("failure", FAILURES)
def test_the_last_place_says_what_is_wrong(image: GeneratedImage, failure: OcistowError) -> None:
    first = Failing(image.path, RegistryError("it", 500), None)
    with pytest.raises(type(failure)) as raised:
        mirrored(first, Failing(image.path, failure, None)).resolve()
    assert raised.value is failure


def test_what_is_meant_for_a_registry_is_not_for_its_mirrors(tmp_path: Path) -> None:
    conf = tmp_path / "registries.conf"
    conf.write_text(
        '[[registry]]\nlocation = "a.org"\n[[registry.mirror]]\nlocation = "b.org"\n'
        '[[registry.mirror]]\nlocation = "a.org/cache"\n'
    )
    access = Access(
        ("user", "secret"), "token", plain_http=True, tls_verify=False, cert_dir=tmp_path
    )
    environ = {"CONTAINERS_REGISTRIES_CONF": str(conf), "HOME": str(tmp_path)}
    places = pull_places(Reference.parse("a.org/app:1"), access, environ)
    hosts = [place.reference.registry for place, _ in places]
    assert hosts == ["b.org", "a.org", "a.org"]
    assert [reached for _, reached in places] == [Access(), access, access]
