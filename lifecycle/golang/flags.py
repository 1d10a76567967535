"""Command-line flags as Go's `flag` package reads them, with its words.

`-x value`, `-x=value` and `--x` are one; a switch takes a value only after `=`; reading stops at
`--` and at the first argument that is no flag. Source: pkg.go.dev/flag, "Command line flag syntax";
for integers and booleans pkg.go.dev/strconv.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from ...oci.errors import PhaseFailed
from ..platform_api import Code

Value: TypeAlias = bool | int | str | tuple[str, ...]

_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))
_INTEGER = re.compile(
    r"([+-]?)(?:0[xX]((?:_?[0-9a-fA-F])+)|0[oO]((?:_?[0-7])+)|0[bB]((?:_?[01])+)"
    r"|0((?:_?[0-7])*)|([1-9](?:_?[0-9])*))"
)
_BASES = (16, 8, 2, 8, 10)
_DECIMAL = re.compile(r"[+-]?[0-9]+")
_DIGITS = 64  # no integer of 64 bits has more
_SHORT = {7: r"\a", 8: r"\b", 9: r"\t", 10: r"\n", 11: r"\v", 12: r"\f", 13: r"\r"}


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag that a phase knows.

    Attributes:
        default: its value without the flag; its type says which values it takes. Every use of a
            flag with a tuple adds one element to it.
    """

    name: str
    usage: str
    default: Value = ""


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a command line says.

    Attributes:
        values: of every flag, by its name.
        given: names of the flags that were there.
        positional: the arguments after them.
        wants_help: it has `-h` or `-help`, after which nothing was read.
    """

    values: Mapping[str, Value]
    given: frozenset[str] = field(default_factory=frozenset[str])
    positional: tuple[str, ...] = ()
    wants_help: bool = False


def parse(flags: Sequence[Flag], arguments: Sequence[str]) -> Parsed:
    """Read a command line, without the name of the program.

    Raises:
        PhaseFailed: it has a flag that there is not, or a value that does not fit; the message
            has no `failed to`, and `usage` belongs below it.
    """
    known = {flag.name: flag for flag in flags}
    values = {flag.name: flag.default for flag in flags}
    given = set[str]()
    rest = list(arguments)
    while rest and len(rest[0]) > 1 and rest[0].startswith("-"):
        argument = rest.pop(0)
        if argument == "--":
            break
        name, equals, text = argument[2 if argument[1] == "-" else 1 :].partition("=")
        if not name or name.startswith("-"):
            raise _wrong(f"bad flag syntax: {argument}")
        if name not in known:
            if name in ("h", "help"):
                return Parsed(values, frozenset(given), wants_help=True)
            raise _wrong(f"flag provided but not defined: -{name}")
        if not equals:
            if isinstance(known[name].default, bool):
                text = "true"
            elif rest:
                text = rest.pop(0)
            else:
                raise _wrong(f"flag needs an argument: -{name}")
        given.add(name)
        values[name] = _value(name, values[name], text)
    return Parsed(values, frozenset(given), tuple(rest))


def usage(flags: Sequence[Flag]) -> str:
    """Return what Go's lifecycle prints to stderr for `-h` and below a wrong flag."""
    lines = ["Usage of lifecycle:\n"]
    for flag in sorted(flags, key=lambda flag: flag.name):
        kind = _KINDS[type(flag.default)]
        head = f"  -{flag.name} {kind}".rstrip()
        gap = "\t" if len(head) <= 4 else "\n    \t"
        lines.append(f"{head}{gap}{flag.usage}{_default(flag.default)}\n")
    return "".join(lines)


def boolean(text: str) -> bool | None:
    """Return what Go's `ParseBool` makes of text; None where it refuses."""
    return True if text in _TRUE else False if text in _FALSE else None


def decimal(text: str) -> int | None:
    """Return what Go's `Atoi` makes of text; None where it refuses."""
    if _DECIMAL.fullmatch(text) is None:
        return None
    number = _number(text[0], text.lstrip("+-"), 10)
    return number if -(2**63) <= number < 2**63 else None


def quote(text: str) -> str:
    """Return text as Go's `%q` shows it; bytes that were no UTF-8 are lone surrogates here."""
    shown: list[str] = []
    for character in text:
        code = ord(character)
        if character in '"\\':
            shown.append(f"\\{character}")
        elif character.isprintable():
            shown.append(character)
        elif code in _SHORT:
            shown.append(_SHORT[code])
        elif 0xDC80 <= code <= 0xDCFF:
            shown.append(f"\\x{code - 0xDC00:02x}")
        elif code < 0x80:
            shown.append(f"\\x{code:02x}")
        else:
            shown.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return f'"{"".join(shown)}"'


_KINDS = {bool: "", int: "int", str: "string", tuple: "value"}


def _default(value: Value) -> str:
    if not value:
        return ""
    if isinstance(value, str):
        return f" (default {quote(value)})"
    if isinstance(value, tuple):
        return f" (default [{' '.join(value)}])"
    return f" (default {'true' if value is True else value})"


def _value(name: str, before: Value, text: str) -> Value:
    if isinstance(before, bool):
        switched = boolean(text)
        if switched is None:
            raise _wrong(f"invalid boolean value {quote(text)} for -{name}: parse error")
        return switched
    if isinstance(before, int):
        number = _integer(text)
        if number is None or not -(2**63) <= number < 2**63:
            why = "parse error" if number is None else "value out of range"
            raise _wrong(f"invalid value {quote(text)} for flag -{name}: {why}")
        return number
    return (*before, text) if isinstance(before, tuple) else text


def _integer(text: str) -> int | None:
    """Read an integer as Go writes them, in any base; None if it is none."""
    found = _INTEGER.fullmatch(text)
    if found is None:
        return None
    sign, *digits = found.groups()
    for base, each in zip(_BASES, digits, strict=True):
        if each is not None:
            return _number(sign, each.replace("_", ""), base)
    raise AssertionError(text)


def _number(sign: str, digits: str, base: int) -> int:
    """Return the integer; one that has more digits than 64 bits is only known to be too big."""
    digits = digits.lstrip("0")
    number = int(digits or "0", base) if len(digits) <= _DIGITS else 2**64
    return -number if sign == "-" else number


def _wrong(message: str) -> PhaseFailed:
    return PhaseFailed(Code.USAGE, message)
