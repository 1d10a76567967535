import itertools
from collections.abc import Iterator
from pathlib import PurePosixPath

from hypothesis import given
from hypothesis import strategies as st

from ocistow.audit.shares import Share, amortise
from ocistow.audit.tree import Branch, tree
from ocistow.audit.usage import Cost, Usage

NAMES = tuple(map(PurePosixPath, ("a", "a/b", "a/b/c", "d/e/1", "d/e/2", "d/f/1", "g/h/i/j")))

sets = st.frozensets(st.integers(0, len(NAMES) - 1), min_size=1).map(sorted).map(tuple)
shares = st.lists(st.builds(Share, sets, st.integers(1, 100)), max_size=8).map(tuple)


def usage_of(shares: tuple[Share, ...], asked: range = range(len(NAMES))) -> Usage:
    borne = amortise(shares)
    layouts = tuple(Cost(NAMES[at], 1, at, 0, 0, borne[at], 0, 0) for at in asked)
    return Usage(
        layouts,
        Cost(PurePosixPath(), 0, 0, 0, 0, 0, 0, 0),
        0,
        shares,
        shares,
        NAMES,
        0,
        0,
        0,
        0,
        (),
        0,
        0,
    )


def branches(top: Branch) -> Iterator[Branch]:
    yield top
    yield from itertools.chain.from_iterable(map(branches, top.below))


@given(shares)
def test_a_directory_costs_what_its_layouts_would_as_one(shares: tuple[Share, ...]) -> None:
    for branch in branches(tree(usage_of(shares))):
        inside = {at for at, n in enumerate(NAMES) if n.is_relative_to(branch.cost.name)}
        cost = branch.cost
        assert cost.images == len(inside)
        assert cost.on_disk == sum(s.size for s in shares if inside & set(s.layouts))
        assert cost.exclusive == sum(s.size for s in shares if inside >= set(s.layouts))
        assert cost.reclaimable == cost.exclusive
        assert cost.shared == cost.on_disk - cost.exclusive
        assert cost.apparent == sum(inside)


@given(shares)
def test_what_was_not_asked_for_is_in_no_branch_but_shares(shares: tuple[Share, ...]) -> None:
    top = tree(usage_of(shares, range(3)))
    assert [branch.cost.name for branch in top.below] == [PurePosixPath("a")]
    assert top.cost.on_disk == sum(s.size for s in shares if min(s.layouts) < 3)
    assert top.cost.exclusive == sum(s.size for s in shares if max(s.layouts) < 3)


@given(shares)
def test_all_bear_together_what_there_is(shares: tuple[Share, ...]) -> None:
    assert amortise(shares).total() == sum(share.size for share in shares)
