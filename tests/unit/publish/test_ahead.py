import io
import threading
from collections.abc import Iterator

import pytest

from ocistow.oci.errors import InvalidContent
from ocistow.publish.ahead import DEPTH, Ahead

CONTENT = bytes(range(256)) * 40_000


class Watched(io.BytesIO):
    """Counts reads, and fails at one of them."""

    def __init__(self, content: bytes, failing: int = -1) -> None:
        super().__init__(content)
        self.reads = 0
        self.failing = failing

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads == self.failing:
            raise InvalidContent("broken")
        return super().read(size)


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "ahead"]


@pytest.mark.parametrize("size", [1000, 1 << 20, 3 << 20])
def test_it_gives_what_the_stream_gives(size: int) -> None:
    ahead = Ahead(io.BytesIO(CONTENT))
    assert b"".join(iter(lambda: ahead.read(size), b"")) == CONTENT
    assert ahead.read(size) == b""
    ahead.close()


def test_it_reads_only_so_far_ahead() -> None:
    stream = Watched(bytes((DEPTH + 10) << 20))
    ahead = Ahead(stream)
    assert ahead.read(1)
    ahead.close()
    assert stream.closed
    assert stream.reads <= DEPTH + 3  # one was taken, one waits for room, one more while closing


def test_errors_come_where_they_were() -> None:
    ahead = Ahead(Watched(bytes(3 << 20), failing=3))
    assert len(ahead.read(1 << 20)) + len(ahead.read(1 << 20)) == 2 << 20
    with pytest.raises(InvalidContent, match="broken"):
        ahead.read(1)
    ahead.close()
