"""A subset of a store's blobs as users write it: 5%, 1/20, 50GB."""

from __future__ import annotations

import re

import click

from ..store.verification.verifier import Subset
from .quantities import bytes_of

_PART = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")
_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,3})?)%")


class SubsetType(click.ParamType[Subset]):
    """Some of a store's blobs: a share, a part of several, or a size."""

    name = "SUBSET"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Subset:
        """Return which."""
        if isinstance(value, Subset):
            return value
        found = self._parse(str(value))
        if found is None:
            words = "is not a share such as 5%, a part such as 1/20, or a size"
            self.fail(f"{str(value)!r} {words}", param, ctx)
        return found

    def _parse(self, text: str) -> Subset | None:
        if (match := _SHARE.fullmatch(text)) and 0 < float(match[1]) <= 100:
            return Subset(share=float(match[1]) / 100)
        if (match := _PART.fullmatch(text)) and 1 <= int(match[1]) <= int(match[2]):
            return Subset(part=(int(match[1]), int(match[2])))
        size = bytes_of(text)
        return Subset(size=size) if size else None
