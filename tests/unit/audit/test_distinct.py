import hashlib
import random

import pytest

from ocistow.audit.distinct import Distinct


def fingerprint(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()[:16]


def total(distinct: Distinct[str]) -> int:
    return sum(size for _, size in distinct.shares())


def test_equal_contents_count_once_for_who_had_them_first() -> None:
    distinct = Distinct[str]()
    for owner in ("first", "second"):
        distinct.add(fingerprint(1), 10, owner)
    distinct.add(fingerprint(2), 10, "second")
    distinct.add(fingerprint(3), 0, "third")
    assert sorted(distinct.shares()) == [("first", 10), ("second", 10)]
    assert distinct.deviation == 0.0


def test_what_an_owner_had_is_forgotten() -> None:
    distinct = Distinct[str]()
    distinct.add(fingerprint(1), 10, "a")
    distinct.add(fingerprint(2), 20, "b")
    distinct.forget("a")
    assert list(distinct.shares()) == [("b", 20)]


def test_up_to_the_limit_it_is_exact() -> None:
    distinct = Distinct[str](100)
    for number in range(100):
        distinct.add(fingerprint(number), number, "a")
    assert total(distinct) == sum(range(100))
    assert distinct.threshold == 0


@pytest.mark.parametrize("seed", range(3))
def test_beyond_the_limit_memory_is_bounded_and_the_sum_is_near(seed: int) -> None:
    """Few contents have most of the bytes, as files do."""
    chance = random.Random(seed)
    sizes = [int(chance.paretovariate(0.9) * 1000) for _ in range(20_000)]
    distinct = Distinct[str](2000)
    for again in range(2):
        for number, size in enumerate(sizes):
            distinct.add(fingerprint(number + seed * 100_000), size, f"{again}")
    kept = list(distinct.shares())
    assert len(kept) <= 2000
    assert {owner for owner, _ in kept} == {"0"}
    assert 0 < distinct.deviation < 0.05
    assert abs(total(distinct) - sum(sizes)) < 4 * distinct.deviation * sum(sizes)


def test_equal_sizes_do_not_stop_it() -> None:
    distinct = Distinct[str](10)
    for number in range(1000):
        distinct.add(fingerprint(number), 4096, "a")
    assert len(list(distinct.shares())) <= 10
    assert 0.2 * 4_096_000 < total(distinct) < 5 * 4_096_000
