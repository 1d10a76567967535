"""Hypothesis strategies for TOML: documents, and bytes that look like those of a schema."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import cast

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from ..lifecycle.golang import toml as gotoml

_HOSTILE = (
    b"\xef\xbb\xbf",
    b"\xff",
    b"a = " + b"[" * 5000,
    b"a." * 5000 + b"b = 1",
    b"[" + b"'a'." * 5000 + b"b]",
    b"a = " + b"9" * 5000,
    b"a = 9223372036854775808",
    b"a = 1\na = 2",
    b"a = 0001-01-01T00:00:00+23:59",
    b"a = inf",
)


def tables() -> SearchStrategy[dict[str, object]]:
    """Return documents of every kind of value that TOML has."""
    return st.dictionaries(_text(), _values(), max_size=5)


def texts_like(keys: Sequence[str]) -> SearchStrategy[bytes]:
    """Return the bytes of documents that have these keys, with values that are often wrong.

    Some are cut, some are not TOML at all.
    """
    documents = _like(keys).map(gotoml.encode)
    cut = st.tuples(documents, st.floats(0, 1)).map(lambda it: it[0][: int(len(it[0]) * it[1])])
    return st.one_of(documents, documents, cut, st.binary(max_size=40), st.sampled_from(_HOSTILE))


def _like(keys: Sequence[str]) -> SearchStrategy[dict[str, object]]:
    names = st.sampled_from(keys) if keys else _text()
    plain = st.one_of(_text(), st.booleans(), st.integers(-9, 9), st.lists(_text(), max_size=2))

    def deeper(inner: SearchStrategy[object]) -> SearchStrategy[object]:
        below = st.dictionaries(names, inner, max_size=4)
        return st.one_of(below, st.lists(below, max_size=3))

    values: SearchStrategy[object] = st.recursive(
        cast("SearchStrategy[object]", plain), deeper, max_leaves=12
    )
    return st.dictionaries(names, values, max_size=6)


def _text() -> SearchStrategy[str]:
    return st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


def _values() -> SearchStrategy[object]:
    first, last = datetime(1, 1, 2), datetime(9999, 12, 30)  # every zone has them
    zones = st.integers(-720, 720).map(lambda minutes: timezone(timedelta(minutes=minutes)))
    moments = st.datetimes(first, last) | st.datetimes(first, last, timezones=zones)
    plain = st.one_of(
        _text(),
        st.booleans(),
        st.integers(-(1 << 63), (1 << 63) - 1),
        st.floats(allow_nan=False),
        moments,
        st.dates(),
        st.times(),
    )

    def deeper(inner: SearchStrategy[object]) -> SearchStrategy[object]:
        return st.lists(inner, max_size=4) | st.dictionaries(_text(), inner, max_size=4)

    return st.recursive(cast("SearchStrategy[object]", plain), deeper, max_leaves=10)
