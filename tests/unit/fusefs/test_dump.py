"""The state of a mount is told by a thread while the event loop changes it."""

import itertools
from collections.abc import Iterable, Iterator

from ocistow.fusefs.filesystem import FileSystem
from ocistow.fusefs.health.dump import state

from .conftest import Client


class Changing(FileSystem):
    """One of which `races` looks in a row see something that is changed just then."""

    def __init__(self, client: Client, races: Iterable[Exception]) -> None:
        super().__init__(client.view)
        self._races = iter(races)

    def describe(self) -> Iterator[tuple[str, Iterable[str]]]:
        yield "some", self._some()

    def _some(self) -> Iterator[str]:
        yield "before"
        for race in self._races:
            raise race
        yield "after"


def test_what_changes_is_looked_at_again(client: Client) -> None:
    races = [KeyError((1, b"name")), RuntimeError("dictionary changed size during iteration")]
    told = state(Changing(client, races))
    assert told.count("before") == told.count("after") == 1
    assert "threads: " in told


def test_what_never_stops_changing_is_left_out(client: Client) -> None:
    """Whoever is told of nothing at all ends the mount, since nobody watches it any more."""
    told = state(Changing(client, itertools.repeat(KeyError(1))))
    assert "requests under way: 0" in told
    assert "threads: " in told
