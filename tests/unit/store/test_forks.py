"""Work that processes share: complete, or an error."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence

import pytest

from ocistow.oci.errors import InvalidContent
from ocistow.store.forks import spread
from ocistow.testing.descriptors import open_files


def squares(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    for number in numbers:
        yield os.getpid(), number * number


@pytest.mark.parametrize("count", [1, 3, 40])
def test_every_item_is_done_once_elsewhere(count: int) -> None:
    found = list(spread(range(20), squares, count))
    assert sorted(result for _, result in found) == [number * number for number in range(20)]
    processes = {process for process, _ in found}
    assert len(processes) == min(count, 20)
    assert os.getpid() not in processes


def test_nothing_to_do_is_done() -> None:
    assert not list(spread([], squares))


def test_a_result_may_be_larger_than_a_pipe() -> None:
    def grow(sizes: Sequence[int]) -> Iterator[bytes]:
        yield from map(bytes, sizes)

    assert sorted(map(len, spread([1 << 20, 3 << 20], grow))) == [1 << 20, 3 << 20]


def test_an_error_is_raised_here() -> None:
    def refuse(numbers: Sequence[int]) -> Iterator[int]:
        yield from numbers
        raise InvalidContent("odd")

    with pytest.raises(InvalidContent, match="odd"):
        list(spread([1, 2], refuse, 2))


def test_a_process_that_dies_is_no_end() -> None:
    def die(numbers: Sequence[int]) -> Iterator[int]:
        yield from numbers
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(ChildProcessError, match="ended before its work did"):
        list(spread([1, 2], die, 2))


def test_who_stops_asking_leaves_no_process_and_no_file_open() -> None:
    def count(numbers: Sequence[int]) -> Iterator[int]:
        while True:
            yield os.getpid()

    files = open_files()
    found = spread([1, 2], count, 2)
    process = next(found)
    found.close()
    assert open_files() <= files
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
