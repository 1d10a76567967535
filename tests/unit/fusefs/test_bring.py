"""For which layout an absent blob is fetched: the one by which a client opens it."""

import os
import threading
from pathlib import Path, PurePosixPath

import pytest
import trio

from ocistow.fusefs.attributes import Presentation
from ocistow.fusefs.intent import opened_name
from ocistow.fusefs.lookups import Lookups
from ocistow.fusefs.tree import ROOT
from ocistow.fusefs.view import View
from ocistow.oci.digest import Digest
from ocistow.oci.image_layout import blob_path
from ocistow.store.store import Store
from ocistow.testing.minimal import minimal_image
from ocistow.testing.mounts import wait_until


@pytest.mark.parametrize("meant", ["one", "two"])
async def test_an_absent_blob_is_fetched_for_the_layout_that_is_read(
    tmp_path: Path, meant: str
) -> None:
    """Although it is one inode in all layouts, and another was looked up last."""
    image, fetched = minimal_image("app"), list[PurePosixPath]()
    digest = Digest.of(b"layer one")

    def fill(layout: PurePosixPath, digest: Digest, size: int) -> None:
        fetched.append(layout)

    with Store.create(tmp_path / "store") as store:
        image.add_to(store.blobs, without=[digest])
        for name in ("one", "two"):
            image.write_to(store.layouts / name)
            (store.layouts / name / blob_path(digest)).unlink()
        view = View(store, Presentation(0, 0, 0o022), fill=fill)
        lookups = Lookups(view)
        inodes = {await look_up(lookups, f"{name}/{blob_path(digest)}") for name in ("one", "two")}
        (inode,) = inodes
        fifo = tmp_path / "mount" / meant / blob_path(digest)
        fifo.parent.mkdir(parents=True)
        os.mkfifo(fifo)
        opener = threading.Thread(target=lambda: os.close(os.open(fifo, os.O_RDONLY)))
        opener.start()
        try:
            thread = opener.native_id or 0
            path = os.fsencode(fifo)
            wait_until(lambda: opened_name(thread, [path]) is not None, "nobody opens it")
            await lookups.bring(view.tree[inode], digest, thread)
        finally:
            os.close(await trio.to_thread.run_sync(os.open, fifo, os.O_WRONLY))
            opener.join()
    assert fetched == [PurePosixPath(meant)]


async def look_up(lookups: Lookups, path: str) -> int:
    inode = ROOT
    for name in os.fsencode(path).split(b"/"):
        inode = (await lookups.find(inode, name, 0)).inode
    return inode
