import io

import pytest

from ocistow.oci.descriptor import Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.errors import InvalidContent
from ocistow.publish.source import Blob

CONTENT = bytes(range(200))


def blob(size: int) -> Blob:
    return Blob(io.BytesIO(CONTENT), Descriptor("text/plain", Digest.of(CONTENT), size))


def test_a_blob_is_what_was_announced() -> None:
    seen: list[int] = []
    with blob(200) as whole:
        whole.watch = seen.append
        assert b"".join(iter(lambda: whole.read(64), b"")) == CONTENT
    assert seen == [64, 128, 192, 200, 200]


def test_what_is_longer_is_refused_before_its_end_is_handed_out() -> None:
    got: list[bytes] = []
    with blob(199) as longer, pytest.raises(InvalidContent, match="more than the announced 199"):
        got.extend(iter(lambda: longer.read(64), b""))
    assert b"".join(got) == CONTENT[:192]


def test_what_is_shorter_is_refused() -> None:
    with blob(201) as shorter, pytest.raises(InvalidContent, match="ended at byte 200 of 201"):
        b"".join(shorter)


def test_a_watcher_ends_the_read() -> None:
    def stop(_: int) -> None:
        raise InterruptedError

    with blob(200) as watched:
        watched.watch = stop
        with pytest.raises(InterruptedError):
            watched.read()
