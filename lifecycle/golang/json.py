"""JSON as Go's encoding/json writes it, to the byte.

Labels and configs are compared by their bytes, so those of an image that another lifecycle made
must come out the same. Source: Go's encoding/json, `Marshal`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from typing import cast

from ...oci.errors import InvalidContent

_ESCAPED = re.compile('["\\\\<>&\x00-\x1f\u2028\u2029\ud800-\udfff]')
_SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class Struct(dict[str, object]):
    """An object whose members keep their order; any other mapping is written sorted by key.

    >>> encode(Struct(b=1, a={"d": 2, "c": 3}))
    b'{"b":1,"a":{"c":3,"d":2}}'
    """

    def without_empty(self, *keys: str) -> Struct:
        """Return it without those of these members that Go's `omitempty` leaves out."""
        return Struct((k, v) for k, v in self.items() if v or k not in keys)


def encode(value: object) -> bytes:
    """Return a value as compact JSON.

    Dates and times become text, as TOML's do in Go. Characters that are half a surrogate pair,
    which is what Python makes of bytes that are not UTF-8, become U+FFFD.

    Raises:
        InvalidContent: a number is infinite or none, or a value is nothing that JSON has.
    """
    parts: list[str] = []
    _write(value, parts.append)
    return "".join(parts).encode()


def quote(text: str) -> str:
    """Return a string as JSON, quotes included."""
    return f'"{_ESCAPED.sub(_escape, text)}"'


def scientific(value: float) -> tuple[str, str, int]:
    """Return sign, shortest digits and decimal exponent of a finite number.

    >>> scientific(-1250.0)
    ('-', '125', 3)
    """
    sign = "-" if math.copysign(1, value) < 0 else ""
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    return (sign, digits, point - 1) if digits else (sign, "0", 0)


def positional(sign: str, digits: str, exponent: int) -> str:
    """Return a number without an exponent, and without a point if it is whole."""
    if exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{digits}"
    whole = digits[: exponent + 1].ljust(exponent + 1, "0")
    fraction = digits[exponent + 1 :]
    return f"{sign}{whole}.{fraction}" if fraction else sign + whole


def moment(value: date | time) -> str:
    """Return a date or time as RFC 3339 has it; what says no zone keeps none."""
    if isinstance(value, time):
        return value.replace(microsecond=0).isoformat() + _fraction(value.microsecond)
    if not isinstance(value, datetime):
        return value.isoformat()
    text = value.replace(tzinfo=None, microsecond=0).isoformat() + _fraction(value.microsecond)
    offset = value.utcoffset()
    if offset is None:
        return text
    minutes = int(offset / timedelta(minutes=1))
    if not minutes:
        return f"{text}Z"
    return f"{text}{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


def _write(value: object, write: Callable[[str], object]) -> None:
    if isinstance(value, str):
        write(quote(value))
    elif value is None or isinstance(value, bool):
        write({None: "null", True: "true", False: "false"}[value])
    elif isinstance(value, int):
        write(str(value))
    elif isinstance(value, float):
        write(_number(value))
    elif isinstance(value, date | time):
        write(quote(_zoned(value)))
    elif isinstance(value, Mapping):
        _write_object(cast("Mapping[str, object]", value), write)
    elif isinstance(value, list | tuple):
        _write_array(cast("Iterable[object]", value), write)
    else:
        raise InvalidContent(f"JSON has no {type(value).__name__}")


def _write_object(value: Mapping[str, object], write: Callable[[str], object]) -> None:
    before = "{"
    for key in value if isinstance(value, Struct) else sorted(value):
        write(f"{before}{quote(key)}:")
        _write(value[key], write)
        before = ","
    write("{}" if before == "{" else "}")


def _write_array(values: Iterable[object], write: Callable[[str], object]) -> None:
    before = "["
    for value in values:
        write(before)
        _write(value, write)
        before = ","
    write("[]" if before == "[" else "]")


def _number(value: float) -> str:
    if not math.isfinite(value):
        raise InvalidContent(f"JSON has no number {value}")
    sign, digits, exponent = scientific(value)
    if -6 <= exponent < 21:
        return positional(sign, digits, exponent)
    mantissa = f"{digits[0]}.{digits[1:]}" if digits[1:] else digits
    return f"{sign}{mantissa}e{exponent:+}"


def _zoned(value: date | time) -> str:
    """Return what Go makes of a TOML date or time: all of them are moments, of UTC if need be."""
    text = moment(value)
    if isinstance(value, time):
        return f"0000-01-01T{text}Z"
    if not isinstance(value, datetime):
        return f"{text}T00:00:00Z"
    return f"{text}Z" if value.tzinfo is None else text


def _fraction(microsecond: int) -> str:
    return f".{microsecond:06}".rstrip("0") if microsecond else ""


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    if "\ud800" <= character <= "\udfff":
        return "\\ufffd"
    return _SHORT.get(character) or f"\\u{ord(character):04x}"
