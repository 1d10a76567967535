"""Requests under way, and what is counted of those that were answered."""

import errno
import random

import pytest

from ocistow.fusefs.requests import Latencies, Refusal, Request, Requests
from ocistow.oci.errors import InvalidContent, NotFound


@pytest.mark.parametrize("shift", [1, 5, 10, 20, 30])
def test_quantiles_are_nearly_right(shift: int) -> None:
    dice = random.Random(shift)
    times = [dice.randrange(10, 16 << shift) for _ in range(2000)]
    latencies = Latencies()
    for elapsed in times:
        latencies.note(elapsed)
    assert latencies.longest == max(times)
    for share in (0.01, 0.5, 0.9, 0.99):
        right = sorted(times)[max(0, int(share * len(times)) - 1)]
        assert latencies.quantile(share) == pytest.approx(right, rel=0.14, abs=8)


def test_no_time_is_too_short_or_too_long() -> None:
    latencies = Latencies()
    assert latencies.quantile(0.5) == 0
    for elapsed in (0, 1, 7, 8, 1 << 60):
        latencies.note(elapsed)
    assert latencies.count == 5
    assert latencies.quantile(0.01) == 0
    assert latencies.quantile(1) <= 1 << 60


async def test_a_request_is_under_way_until_it_is_answered() -> None:
    requests = Requests()
    with requests.answering("read", 7):
        with requests.answering("lookup", 1, b"\xffname"):
            assert [str(r) for r in requests.waiting()] == ["read 7", r"lookup 1 b'\xffname'"]
        assert [str(r) for r in requests.waiting()] == ["read 7"]
    assert requests.waiting() == []
    assert {name: times.count for name, times in requests.latencies.items()} == {
        "lookup": 1,
        "read": 1,
    }


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFound("x"), errno.ENOENT),
        (InvalidContent("x"), errno.EIO),
        (OSError(errno.ENOSPC, "full"), errno.ENOSPC),
    ],
)
async def test_errors_that_are_known_are_answered_with_their_errno(
    error: Exception, code: int
) -> None:
    requests = Requests()
    with pytest.raises(Refusal) as caught, requests.answering("read"):
        raise error
    assert caught.value.code == code
    assert requests.errors == {code: 1}
    assert requests.waiting() == []


async def test_a_bug_is_told_and_passes() -> None:
    requests, told = Requests(), list[tuple[str, Exception]]()

    def tell(request: Request, error: Exception) -> None:
        told.append((str(request), error))

    requests.on_bug = tell
    with pytest.raises(KeyError), requests.answering("read", 3):
        raise KeyError("bug")
    [(request, error)] = told
    assert request == "read 3"
    assert isinstance(error, KeyError)
    assert requests.errors == {}
    assert requests.waiting() == []
