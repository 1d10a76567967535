"""Nothing that a client of a mount relies on is garbage."""

import pytest

from ocistow.oci.digest import Digest
from ocistow.oci.errors import DigestMismatch
from ocistow.oci.reference import Reference
from ocistow.store.collection.collector import Collector
from ocistow.store.store import Store
from ocistow.testing.minimal import minimal_image

from .conftest import Client

A = minimal_image("a")
B = minimal_image("b", ["other"])
NAME = Reference.parse("example.com/app:1")


def collect(store: Store) -> None:
    """Collect what nobody leased or mentions, however young it is."""
    Collector(store, grace=-1).collect()


async def test_a_looked_up_blob_of_the_pool_is_kept(client: Client) -> None:
    digest = client.store.blobs.add([b"content"])
    await client.mkdir("image/blobs/sha256")
    await client.inode(f"image/blobs/sha256/{digest.encoded}")
    collect(client.store)
    assert digest in client.store.blobs
    await client.view.close()
    collect(client.store)
    assert digest not in client.store.blobs


async def test_what_a_layout_has_but_does_not_mention_is_kept_once_one_is_looked_up(
    client: Client,
) -> None:
    for image in (A, B):
        image.add_to(client.store.blobs)
        client.store.put(NAME, image.root)
    useless = next(iter(A.blobs))
    await client.inode(f"{NAME.path}/blobs/sha256/{useless.encoded}")
    assert set(client.store.leases.held()) == {*A.blobs, *B.blobs}
    collect(client.store)
    assert client.store.layout(NAME.path).own(useless) is not None


async def test_a_blob_that_was_written_is_kept_until_an_index_mentions_it(client: Client) -> None:
    await client.mkdir("image/blobs/sha256")
    content = b"content"
    digest = Digest.of(content)
    await client.write_file(f"image/blobs/sha256/{digest.encoded}", content)
    collect(client.store)
    assert digest in client.store.blobs
    assert await client.read_file(f"image/blobs/sha256/{digest.encoded}") == content


async def test_a_file_that_became_a_blob_is_kept(client: Client) -> None:
    await client.mkdir("image/blobs/sha256")
    content = b"content"
    digest = Digest.of(content)
    await client.write_file("image/temporary", content)
    await client.rename("image/temporary", f"image/blobs/sha256/{digest.encoded}")
    collect(client.store)
    assert digest in client.store.blobs


async def test_what_was_refused_is_not_leased(client: Client) -> None:
    await client.mkdir("image/blobs/sha256")
    name = Digest.of(b"something else").encoded
    with pytest.raises(DigestMismatch):
        await client.write_file(f"image/blobs/sha256/{name}", b"content")
    assert set(client.store.leases.held()) == set()
