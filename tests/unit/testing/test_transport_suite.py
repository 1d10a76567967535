"""That the suite of transports fails for sinks that do what they must not."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ocistow.oci.descriptor import Descriptor
from ocistow.oci.errors import NotFound
from ocistow.oci.reference import Reference
from ocistow.publish.layout import StoreSink
from ocistow.publish.sink import Action, Image, Sink
from ocistow.publish.source import Source
from ocistow.store.store import Store
from ocistow.testing.transport_suite import SinkSuite
from ocistow.testing.transports import Kind, Peer, StorePeer


class Forgetful(StoreSink):
    def has(self, descriptor: Descriptor) -> bool:
        return False


class Hasty(StoreSink):
    """Names whatever it has when the last manifest comes."""

    def put_manifest(self, descriptor: Descriptor, raw: bytes) -> None:
        super().put_manifest(descriptor, raw)
        self.tag(descriptor)


class Credulous(StoreSink):
    def begin(self, image: Image) -> None:
        """Take any name."""


class Silent(StoreSink):
    def put_blob(self, descriptor: Descriptor, source: Source) -> Action:
        return Action.SENT


@dataclass
class BrokenPeer(StorePeer):
    kind: type[StoreSink]

    @contextmanager
    def sink(self, name: str) -> Generator[Sink]:
        yield self.kind(self.store, Reference.parse(name))


@contextmanager
def never(path: Path) -> Generator[Peer]:
    raise AssertionError(path)
    yield


@pytest.mark.parametrize(
    ("sink", "test"),
    [
        (Forgetful, SinkSuite.test_a_second_copy_sends_nothing),
        (Forgetful, SinkSuite.test_the_next_build_sends_what_changed),
        (Hasty, SinkSuite.test_what_was_not_tagged_has_no_name),
        (Credulous, SinkSuite.test_a_name_that_is_another_digest_is_refused),
        (Silent, SinkSuite.test_an_image_gets_its_name),
    ],
)
def test_a_broken_sink_fails(tmp_path: Path, sink: type[StoreSink], test: object) -> None:
    assert callable(test)
    kind = Kind("broken", never, names_digests=True)
    with Store.create(tmp_path / "there") as there, Store.create(tmp_path / "here") as here:
        test(SinkSuite(), kind, StorePeer(there, here), tmp_path / "good")
    with (
        Store.create(tmp_path / "broken") as there,
        Store.create(tmp_path / "here") as here,
        pytest.raises((AssertionError, NotFound)),
    ):
        test(SinkSuite(), kind, BrokenPeer(there, here, sink), tmp_path / "bad")
