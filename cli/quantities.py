"""Quantities as users write them: 90s, 2h, 1d; 500k, 50MB/s."""

from __future__ import annotations

import re

import click

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_DURATION = re.compile(r"([0-9]{1,9})([smhdw]?)")
_SIZE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,3})?)([kmgt]?)b?(?:/s)?", re.IGNORECASE)


class DurationType(click.ParamType[float]):
    """A time in seconds."""

    name = "DURATION"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the seconds."""
        if isinstance(value, float):
            return value
        match = _DURATION.fullmatch(str(value))
        if match is None:
            self.fail(f"{str(value)!r} is not a number with s, m, h, d or w", param, ctx)
        return float(int(match[1]) * _SECONDS[match[2] or "s"])


class BytesType(click.ParamType[int]):
    """A number of bytes, or of bytes a second."""

    name = "SIZE"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return the bytes."""
        if isinstance(value, int):
            return value
        size = bytes_of(str(value))
        if not size:
            self.fail(
                f"{str(value)!r} is not a number of bytes such as 500k, 50MB or 2G", param, ctx
            )
        return size


def bytes_of(text: str) -> int:
    """Return the bytes that a text such as 50MB means, or 0."""
    match = _SIZE.fullmatch(text)
    return int(float(match[1]) * _FACTORS[match[2].lower()]) if match else 0
