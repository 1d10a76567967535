"""What the watchdog takes a request to wait for."""

import threading
from pathlib import PurePosixPath

import trio

from ocistow.fusefs.calls import Calls
from ocistow.fusefs.filling import Filling
from ocistow.fusefs.health.causes import Cause, Causes
from ocistow.oci.digest import Digest

from .conftest import TIMEOUT, Client

DIGEST = Digest.of(b"a layer")


def test_whoever_waits_for_a_fetch_waits_for_the_network(client: Client) -> None:
    """The archive of an image waits for several, without a name of its own for each."""
    begun, let_go = threading.Event(), threading.Event()

    def fill(layout: PurePosixPath, digest: Digest, size: int) -> None:
        begun.set()
        assert let_go.wait(TIMEOUT)

    async def main() -> None:
        filling = Filling(fill, client.view.gate, client.view.files)
        found: list[trio.lowlevel.Task] = []

        async def wait() -> None:
            found.append(trio.lowlevel.current_task())
            await filling.fetch(PurePosixPath("a"), {DIGEST: 7})

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            assert await trio.to_thread.run_sync(begun.wait, TIMEOUT)
            try:
                assert Causes(Calls()).of(*found) is Cause.NETWORK
            finally:
                let_go.set()

    trio.run(main)
