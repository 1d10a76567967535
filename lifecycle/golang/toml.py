"""TOML as the Go lifecycle writes it, to the byte.

`config/metadata.toml` is a layer of the image, so its bytes are part of what the image is called.
Source: github.com/BurntSushi/toml, `Encoder`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, time
from typing import cast

from ...oci.errors import InvalidContent
from .json import Struct, moment, positional, scientific

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPED = re.compile('["\\\\\x00-\x1f\x7f]')
_SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


@dataclass(frozen=True, slots=True)
class Literal:
    """A value that is TOML already."""

    text: str


def encode(document: Mapping[str, object]) -> bytes:
    """Return a document as TOML: the members of a `Struct` in its order, of others sorted.

    None stands for nothing. Values come before tables, which are indented by two spaces a level.

    Raises:
        InvalidContent: a value is nothing that TOML has.
    """
    lines: list[str] = []
    _write_table(document, (), lines.append)
    try:
        return "".join(lines).removeprefix("\n").encode()
    except UnicodeEncodeError as error:
        raise InvalidContent("TOML has no text that is not UTF-8") from error


def _write_table(
    table: Mapping[str, object], path: tuple[str, ...], write: Callable[[str], object]
) -> None:
    indent = "  " * len(path)
    inner: list[str] = []
    for key in _keys(table):
        if _has_header(table[key]):
            inner.append(key)
        else:
            write(f"{indent}{_key(key)} = {_value(table[key])}\n")
    for key in inner:
        value, below = table[key], (*path, key)
        name = ".".join(map(_key, below))
        if isinstance(value, Mapping):
            write(f"\n[{name}]\n" if not path else f"{indent}[{name}]\n")
            _write_table(cast("Mapping[str, object]", value), below, write)
            continue
        for each in cast("Iterable[Mapping[str, object]]", value):
            write(f"\n{indent}[[{name}]]\n")
            _write_table(each, below, write)


def _keys(table: Mapping[str, object]) -> list[str]:
    return [
        key
        for key in (table if isinstance(table, Struct) else sorted(table))
        if table[key] is not None
    ]


def _has_header(value: object) -> bool:
    """Tell whether a value is a table, or an array of nothing but tables."""
    if isinstance(value, list | tuple) and value:
        return all(isinstance(each, Mapping) for each in cast("Iterable[object]", value))
    return isinstance(value, Mapping)


def _value(value: object) -> str:
    if isinstance(value, str):
        return _quote(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, date | time):
        return moment(value)
    if isinstance(value, Literal):
        return value.text
    if isinstance(value, Mapping):
        return _inline(cast("Mapping[str, object]", value))
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, cast('Iterable[object]', value)))}]"
    raise InvalidContent(f"TOML has no {type(value).__name__}")


def _inline(table: Mapping[str, object]) -> str:
    keys = sorted(_keys(table), key=lambda key: _has_header(table[key]))
    return f"{{{', '.join(f'{_key(key)} = {_value(table[key])}' for key in keys)}}}"


def _float(value: float) -> str:
    if not math.isfinite(value):
        return str(value)
    sign, digits, exponent = scientific(value)
    if not -4 <= exponent < 6:
        mantissa = f"{digits[0]}.{digits[1:]}" if digits[1:] else digits
        return f"{sign}{mantissa}e{exponent:+03}"
    text = positional(sign, digits, exponent)
    return text if "." in text else f"{text}.0"


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _quote(key)


def _quote(text: str) -> str:
    return f'"{_ESCAPED.sub(_escape, text)}"'


def _escape(found: re.Match[str]) -> str:
    return _SHORT.get(found[0]) or f"\\u{ord(found[0]):04x}"
