"""Documents from outside, JSON or TOML: bounded, typed access to their members.

Every accessor raises `InvalidContent` naming the member when it is not of the
expected type, so parsers above read like the schemas they implement.
"""

from __future__ import annotations

import json
import math
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias, cast

from .errors import InvalidContent
from .wording import MAX_VALUE, quoted

MAX_DOCUMENT = 4 << 20  # bytes of a manifest, index or config; registries refuse larger ones too
MAX_TABLE = 1 << 20  # bytes of TOML, which take a second; what people write has a few KB
MAX_DEPTH = 64  # levels of what is kept without being understood, and written again

Object: TypeAlias = Mapping[str, object]

# tomllib takes time for each part of a key with dots, as often as the table above has parts.
_MAX_STEPS = 5_000_000  # a second; files that people write need a few hundred
_PART = rb"""(?:[A-Za-z0-9_-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+"""
_DOTTED = re.compile(rb"(?:^|[\[{,])[ \t]*+((?:%b)++)" % _PART, re.MULTILINE)


def parse_object(raw: bytes, what: str, *, integer: Callable[[str], object] = int) -> Object:
    """Read one JSON object of at most `MAX_DOCUMENT` bytes; `what` names it in messages.

    `integer` makes the values of numbers without fraction and exponent.

    Raises:
        InvalidContent: it is too large, not JSON, or not an object.
    """
    if len(raw) > MAX_DOCUMENT:
        raise InvalidContent(f"{what} has {len(raw)} bytes, at most {MAX_DOCUMENT} are accepted")
    return as_object(parse_json(raw, what, integer=integer), what)


def parse_json(raw: bytes, what: str, *, integer: Callable[[str], object] = int) -> object:
    """Read any JSON value, of which the caller bounds the size; otherwise as `parse_object`."""
    try:
        text = raw.decode()  # json.loads would also accept UTF-16 and UTF-32, other tools do not
        document: object = json.loads(text, parse_constant=_refuse_constant, parse_int=integer)
        if "\\u" in text:  # half a surrogate pair can be written so, but never printed or stored
            json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise InvalidContent(f"{what} is not JSON: {error}") from error
    return document


def parse_table(raw: bytes, what: str, limit: int = MAX_TABLE) -> Object:
    """Read a TOML document of at most `limit` bytes; `what` names it in messages.

    Integers are those of 64 bits, as TOML promises.

    Raises:
        InvalidContent: it is too large, too deep, has too long keys, or is not TOML.
    """
    if len(raw) > limit:
        raise InvalidContent(f"{what} has over {limit} bytes")
    parts = [match[1].count(b".") for match in _DOTTED.finditer(raw)]
    deepest = max(parts, default=0)
    if deepest >= MAX_DEPTH or sum(count * (count + deepest) for count in parts) > _MAX_STEPS:
        raise InvalidContent(f"{what} has too many keys with too many parts")
    import tomllib  # not for those who only read JSON

    try:
        document: dict[str, object] = tomllib.loads(raw.removeprefix(BOM_UTF8).decode())
    except (ValueError, RecursionError) as error:
        raise InvalidContent(f"{what} is not TOML: {error}") from error
    for level in levels(document, what):
        if any(isinstance(value, int) and not -(1 << 63) <= value < 1 << 63 for value in level):
            raise InvalidContent(f"{what} has an integer of over 64 bits")
    return document


def as_object(value: object, what: str) -> Object:
    """Return `value` as an object, which TOML calls a table."""
    if not isinstance(value, dict):
        raise InvalidContent(f"{what} is not an object")
    return cast("Object", value)  # keys are always strings


def members(value: object, what: str) -> list[object]:
    """Return `value` as an array; absent and null count as empty."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidContent(f"{what} is not an array")
    return cast("list[object]", value)


def inner(document: Object, key: str, what: str) -> Object:
    """Return a member that is an object; absent and null count as empty."""
    value = document.get(key)
    return {} if value is None else as_object(value, f"{key} of {what}")


def inners(document: Object, key: str, what: str) -> list[Object]:
    """Return a member that is an array of objects; absent and null count as empty."""
    found = members(document.get(key), f"{key} of {what}")
    return [as_object(value, f"an entry in {key} of {what}") for value in found]


def string(document: Object, key: str, what: str) -> str:
    """Return a string member; absent and null count as empty."""
    value = document.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidContent(f"{key[:MAX_VALUE]} of {what} is not a string")
    return value


def texts(document: Object, key: str, what: str) -> tuple[str, ...]:
    """Return a member that is an array of strings; absent and null count as empty."""
    found: list[str] = []
    for value in members(document.get(key), f"{key} of {what}"):
        if not isinstance(value, str):
            raise InvalidContent(f"an entry in {key} of {what} is not a string")
        found.append(value)
    return tuple(found)


def flag(document: Object, key: str, what: str) -> bool:
    """Return a member that is true or false; absent and null count as false."""
    value = document.get(key)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise InvalidContent(f"{key} of {what} is not true or false")
    return value


def strings(document: Object, key: str, what: str) -> dict[str, str]:
    """Return an object member whose values are strings; absent and null count as empty."""
    value = document.get(key)
    if value is None:
        return {}
    found: dict[str, str] = {}
    for name, text in as_object(value, f"{key} of {what}").items():
        if not isinstance(text, str):
            raise InvalidContent(f"{quoted(name)} in {key} of {what} is not a string")
        found[name] = text
    return found


def size(document: Object, key: str, what: str) -> int:
    """Return a member that counts bytes: an integer from 0 to 2^63 - 1."""
    value = document.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise InvalidContent(f"{key} of {what} is not a size: {quoted(value)}")
    return value


def writable(document: Object, what: str) -> Object:
    """Return `document`, which then can be written again: not too deep, and without infinity."""
    for level in levels(document, what):
        if any(isinstance(value, float) and not math.isfinite(value) for value in level):
            raise InvalidContent(f"{what} has a number that is too large")
    return document


def levels(document: Object, what: str) -> Iterator[list[object]]:
    """Yield what is in a document, level by level; at most `MAX_DEPTH` are accepted."""
    level = list(document.values())
    for _ in range(MAX_DEPTH):
        if not level:
            return
        yield level
        level = [each for value in level for each in _inside(value)]
    raise InvalidContent(f"{what} has over {MAX_DEPTH} levels")


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return cast("Object", value).values()
    return cast("list[object]", value) if isinstance(value, list) else ()


def _refuse_constant(name: str) -> object:
    raise ValueError(name)  # NaN and Infinity, which Python's parser knows and JSON does not
