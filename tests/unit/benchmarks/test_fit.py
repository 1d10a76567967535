"""A fitted curve says how something grows."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.scenarios.fit import fit

SIZES = (10, 100, 1000, 10_000, 100_000)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.5, 2.0])
def test_the_exponent_is_found_above_what_is_paid_once(exponent: float) -> None:
    found = fit([(x, 0.1 + 1e-2 * x**exponent) for x in SIZES])
    assert found.exponent == pytest.approx(exponent, abs=0.01)
    assert found.start == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize(
    ("exponent", "shape"),
    [(0.5, "less than linear"), (1.0, "linear"), (1.5, "more than linear")],
)
def test_a_shape_has_a_name(exponent: float, shape: str) -> None:
    assert fit([(x, 0.1 + 1e-2 * x**exponent) for x in SIZES]).shape == shape


def test_few_points_do_not_tell_an_exponent_to_the_hundredth() -> None:
    found = fit([(1, 0.16), (16, 0.21), (64, 0.24), (256, 0.89)])
    assert found.shape == "linear"
    assert found.low <= 1 < found.exponent <= found.high


def test_noise_is_flat() -> None:
    found = fit(list(zip(SIZES, (0.11, 0.14, 0.12, 0.13, 0.15), strict=True)))
    assert (found.shape, found.exponent) == ("flat", 0.0)


def test_one_slow_point_in_the_middle_is_not_growth() -> None:
    assert fit(list(zip(SIZES, (0.1, 0.1, 0.16, 0.1, 0.1), strict=True))).shape == "flat"


def test_what_shrinks_does_not_grow() -> None:
    assert fit([(x, 1 + 100 / x) for x in SIZES]).shape == "flat"


@settings(max_examples=25)
@given(st.floats(1e-3, 10), st.floats(1e-7, 1e-2), st.lists(st.floats(0.95, 1.05), min_size=5))
def test_a_little_noise_does_not_make_linear_growth_worse(
    start: float, rate: float, noise: list[float]
) -> None:
    points = [(x, n * (start + rate * x)) for x, n in zip(SIZES, noise, strict=False)]
    found = fit(points)
    assert found.shape == "flat" or found.error < 0.1
    if rate * SIZES[-1] > 10 * start:
        assert found.shape == "linear"
