"""How does something grow? A curve through few points: a + b x^k, with neither a nor b below 0."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

FLAT = 1.5  # what grows by less than this factor over the whole range does not grow
NOISE = 0.2  # a mean relative distance that a machine with other work makes by itself
_EXPONENTS = tuple(step / 100 for step in range(10, 251))

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Fit:
    """What a curve looks like.

    Attributes:
        start: what it costs whatever the size.
        rate: what it costs more, for x to the power of the exponent.
        exponent: 1 is linear; 0 says that nothing grows.
        error: the mean relative distance of the points from the curve; 0.1 is a tenth.
        low, high: exponents that noise does not tell from this one.
    """

    start: float
    rate: float
    exponent: float
    error: float
    low: float
    high: float

    def at(self, x: float) -> float:
        """Return the curve's height."""
        return self.start + (self.rate * x**self.exponent if self.rate else 0.0)

    @property
    def shape(self) -> str:
        """What to call it: flat, less than linear, linear or more than linear."""
        if not self.exponent:
            return "flat"
        if self.high < 1:
            return "less than linear"
        return "linear" if self.low <= 1 else "more than linear"


def fit(points: Sequence[Point]) -> Fit:
    """Return the curve that is relatively nearest to points, two or more, all above 0.

    Relative distances count, so that the small sizes say as much as the large ones.
    """
    flat = _flat(points)
    if flat.error <= NOISE:
        return flat
    curves = [_linear(points, exponent) for exponent in _EXPONENTS]
    best = min([*curves, flat], key=lambda curve: curve.error)
    reach = sorted(best.at(x) for x, _ in points)
    if reach[-1] < FLAT * reach[0]:
        return flat
    alike = [c.exponent for c in curves if c.error <= max(NOISE, 1.25 * best.error)]
    return replace(best, low=min(alike), high=max(alike))


def _flat(points: Sequence[Point]) -> Fit:
    level = math.exp(sum(math.log(y) for _, y in points) / len(points))
    return Fit(level, 0.0, 0.0, _error(points, lambda _: level), 0.0, 0.0)


def _linear(points: Sequence[Point], exponent: float) -> Fit:
    """Return the least squares of (a + b x^k - y) / y, for one k."""
    powers = [x**exponent for x, _ in points]
    weights = [y**-2 for _, y in points]
    heights = [y for _, y in points]
    w = sum(weights)
    wp = _dot(weights, powers)
    wpp = sum(weight * power * power for weight, power in zip(weights, powers, strict=True))
    wy = _dot(weights, heights)
    wpy = sum(g * p * y for g, p, y in zip(weights, powers, heights, strict=True))
    determinant = w * wpp - wp * wp
    rate = (w * wpy - wp * wy) / determinant if determinant else 0.0
    start = (wy - rate * wp) / w
    if start < 0:
        start, rate = 0.0, wpy / wpp
    if rate < 0:
        start, rate = wy / w, 0.0
    curve = Fit(start, rate, exponent, 0.0, exponent, exponent)
    return replace(curve, error=_error(points, curve.at))


def _error(points: Sequence[Point], curve: Callable[[float], float]) -> float:
    return math.sqrt(sum((curve(x) / y - 1) ** 2 for x, y in points) / len(points))


def _dot(some: Sequence[float], others: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(some, others, strict=True))
