"""Documents that are nearly what a parser expects, and the worst that fit its bounds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, TypeAlias, cast

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

Form: TypeAlias = Literal["json", "toml", "bytes"]


class Token(str):
    """Text that stands in a document as it is."""

    __slots__ = ()


class Again(str):
    """A key that an object has a second time."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def _deep(depth: int, opened: str, closed: str) -> Token:
    return Token(opened * depth + "0" + closed * depth)


_VALUES: tuple[object, ...] = (
    None,
    True,
    0,
    -1,
    1,
    1.5,
    1 << 63,
    -(1 << 63) - 1,
    1 << 64,
    Token("1e999"),
    Token("NaN"),
    Token("-Infinity"),
    Token("nan"),
    Token("-inf"),
    Token("9" * 400),
    Token("-" + "9" * 5000),
    Token("0x" + "f" * 5000),
    Token("1_0"),
    Token("2026-01-01T00:00:00Z"),
    Token("0001-01-01T00:00:00+23:59"),
    Token("23:59:59.999999999"),
    Token('"\\ud800"'),
    Token('"\\udfff\\ud800"'),
    Token('"\\U00110000"'),
    "",
    "\0",
    "\n",
    "\x1b[2J",
    "\u202e",
    "a" * 5000,
    "../../../etc/passwd",
    "/",
    ".",
    "sha256:" + "0" * 64,
    "sha512:" + "0" * 64,
    "sha256:" + "A" * 64,
    "0" * 64,
    "e.x/a:1",
    "linux/amd64",
    "application/vnd.oci.image.index.v1+json",
    *(Token(text) for text in ("[]", "{}", "[[]]", "[null]", '{"":{}}')),
    {"a" * 5000: ""},
    _deep(70, "[", "]"),
    _deep(990, "[", "]"),
    _deep(3000, "[", "]"),
    _deep(70, '{"a":', "}"),
    _deep(990, '{"a":', "}"),
    _deep(3000, "{a=", "}"),
)
_PIECES = (
    b"",
    b"\0",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\n",
    b" ",
    b",",
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b"=",
    b"9" * 400,
    b"9" * 5000,
    b"-",
    b"\x80" + b"\xff" * 11,
    b"[" * 3000,
    b'{"a":' * 3000,
    b"a" * 5000,
    b"a." * 100,
    b"\xd9\xa9" * 30,  # digits, but no ASCII ones
)


def dumped(document: object, form: Form) -> bytes:
    """Return a document as text; of `bytes` it is that already."""
    if form == "toml":
        table = cast("Mapping[str, object]", document)
        lines = (f"{json.dumps(str(key))} = {_text(table[key], ' = ')}\n" for key in table)
        return "".join(lines).encode()
    return _text(document, ":").encode() if form == "json" else cast("bytes", document)


def damaged(document: object, form: Form) -> SearchStrategy[bytes]:
    """Return texts of a document in which values, keys or bytes are others than they should be."""
    sound = st.just(document) if form == "bytes" else _mutated(document)
    return sound.map(lambda changed: dumped(changed, form)).flatmap(_cut_up)


def worst(document: object, form: Form, size: int) -> Iterator[tuple[str, bytes]]:
    """Yield texts of about `size` bytes that cost a parser as much as any, with what they are.

    Those in the form of the document are long where it has a list or an object.
    """
    if form == "bytes":
        sound = cast("bytes", document)
        yield "repeated", (sound * (size // len(sound) + 1))[:size]
        return
    for path in _paths(document):
        node = _at(document, path)
        if isinstance(node, list | dict) and node:
            part = len(dumped({"": cast("object", node)}, form))
            if isinstance(node, list):
                longer: object = cast("list[object]", node) * (size // part)
            else:
                table = cast("dict[str, object]", node)
                key, value = next(iter(table.items()))
                each = len(dumped({f"{key}{10**6}": value}, form)) + 2
                longer = {**table, **{f"{key}{10**6 + n}": value for n in range(size // each)}}
            text = dumped(_replaced(document, path, longer), form)
            yield f"long {'.'.join(map(str, path)) or 'whole'}", text[: size + 1]
    for kind, value in _worst_values(form, size - 100):
        yield kind, dumped({"a": Token(value)}, form)
    if form == "toml":
        yield from _worst_toml(size)


def _worst_values(form: Form, size: int) -> Iterator[tuple[str, str]]:
    small = '{"":0},' if form == "json" else '{""=0},'
    for name, part in (
        ("empty arrays", "[],"),
        ("empty objects", "{},"),
        ("small arrays", "[0],"),
        ("small objects", small),
        ("integers", "1,"),
        ("long integers", "9" * 4299 + ","),
        ("fractions", "1e9,"),
        ("long fractions", "0." + "9" * 4000 + ","),
        ("texts", '"é",'),
        ("half pairs", '"\\ud800",' if form == "json" else '"\\ud7ff",'),
    ):
        yield name, f"[{part * (size // len(part.encode()))}0]"
    yield "a deep array", "[" * (size // 2) + "]" * (size // 2)
    yield "a deep object", small[:-4] * (size // len(small[:-4]))
    yield "a long text", '"' + "a" * size + '"'
    yield "a text of escapes", '"' + "\\u0001" * (size // 6) + '"'
    yield "spaces", " " * size + "0"


def _worst_toml(size: int) -> Iterator[tuple[str, bytes]]:
    deep = b".".join([b"a"] * 60)
    wide = b"[" + deep + b"]\n"
    lines = [b"%s.k%d=0\n" % (deep, number) for number in range(size // 130)]
    yield "long keys", b"".join(lines)
    yield "long keys in a deep table", wide + b"".join(lines)
    yield "deep tables", b"".join(b"[%s.k%d]\n" % (deep, number) for number in range(size // 130))
    yield "arrays of deep tables", (b"[[" + deep + b"]]\n") * (size // 124)
    yield "arrays of tables", b"[[a]]\n" * (size // 6)
    yield "one key of many parts", b"a" + b".a" * (size // 2 - 2) + b"=0"
    yield "one quoted key of many parts", b"''" + b". ''" * (size // 4 - 2) + b"=0"
    yield "one table of many parts", b"[a" + b".a" * (size // 2 - 2) + b"]"
    yield "tables", b"".join(b"[k%d]\n" % number for number in range(size // 11))
    yield "keys", b"".join(b"k%d=0\n" % number for number in range(size // 11))
    yield "comments", b"#\n" * (size // 2)
    yield "lines", b"a='''" + b"\n" * (size - 8) + b"'''"
    yield "quotes", b'a="""' + b'\\"' * (size // 2 - 4) + b'"""'
    yield "line ends", b'a="""' + b"\\\n" * (size // 2 - 4) + b'"""'
    yield "times", b"a=[" + b"2026-01-01T00:00:00Z," * (size // 21 - 1) + b"]"
    yield "an unfinished array", b"a=[" + b"#\n" * (size // 2 - 2)


def _text(node: object, colon: str) -> str:
    if isinstance(node, Token):
        return str(node)
    if isinstance(node, dict):
        table = cast("dict[str, object]", node)
        pairs = (f"{json.dumps(str(key))}{colon}{_text(table[key], colon)}" for key in table)
        return f"{{{','.join(pairs)}}}"
    if isinstance(node, list):
        return f"[{','.join(_text(each, colon) for each in cast('list[object]', node))}]"
    return json.dumps(node)


@st.composite
def _mutated(draw: st.DrawFn, document: object) -> object:
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from(list(_paths(document))))
        change = draw(st.sampled_from(_CHANGES))
        document = change(draw, document, path)
    return document


def _replace(draw: st.DrawFn, document: object, path: tuple[object, ...]) -> object:
    return _replaced(document, path, draw(st.sampled_from(_VALUES))) if path else document


def _swap(draw: st.DrawFn, document: object, path: tuple[object, ...]) -> object:
    other = draw(st.sampled_from(list(_paths(document))))
    return _replaced(document, path, _at(document, other)) if path else document


def _remove(_: st.DrawFn, document: object, path: tuple[object, ...]) -> object:
    if not path:
        return document
    above = _at(document, path[:-1])
    if isinstance(above, dict):
        rest: object = {
            k: v for k, v in cast("dict[object, object]", above).items() if k != path[-1]
        }
    else:
        rest = [v for at, v in enumerate(cast("list[object]", above)) if at != path[-1]]
    return _replaced(document, path[:-1], rest)


def _add(draw: st.DrawFn, document: object, path: tuple[object, ...]) -> object:
    node, value = _at(document, path), draw(st.sampled_from(_VALUES))
    if isinstance(node, list):
        return _replaced(document, path, [*cast("list[object]", node), value])
    if not isinstance(node, dict):
        return document
    table = cast("dict[str, object]", node)
    keys = [*map(str, table), "", "\0", "a" * 5000, "é"]
    return _replaced(document, path, {**table, Again(draw(st.sampled_from(keys))): value})


_CHANGES: tuple[Callable[[st.DrawFn, object, tuple[object, ...]], object], ...] = (
    _replace,
    _replace,
    _swap,
    _remove,
    _add,
)


def _cut_up(raw: bytes) -> SearchStrategy[bytes]:
    """Return the bytes, usually as they are, else with some replaced by others."""
    places = st.tuples(st.floats(0, 1), st.sampled_from((0, 0, 1, 2, 10, 10_000)))
    cuts = st.tuples(places, st.sampled_from(_PIECES) | st.binary(max_size=3))
    return st.just(raw) | st.lists(cuts, min_size=1, max_size=3).map(lambda c: _spliced(raw, c))


def _spliced(raw: bytes, cuts: Sequence[tuple[tuple[float, int], bytes]]) -> bytes:
    for (place, length), piece in cuts:
        at = int(place * len(raw))
        raw = raw[:at] + piece + raw[at + length :]
    return raw


def _paths(node: object, at: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    yield at
    if isinstance(node, dict):
        for key, value in cast("dict[object, object]", node).items():
            yield from _paths(value, (*at, key))
    elif isinstance(node, list):
        for number, value in enumerate(cast("list[object]", node)):
            yield from _paths(value, (*at, number))


def _at(node: object, path: tuple[object, ...]) -> object:
    for step in path:
        node = cast("dict[object, object]", node)[step]  # or a list, by number
    return node


def _replaced(node: object, path: tuple[object, ...], value: object) -> object:
    """Return a copy with another value at a path."""
    if not path:
        return value
    step, rest = path[0], path[1:]
    if isinstance(node, dict):
        table = cast("dict[object, object]", node)
        return {
            k: _replaced(v, rest, value) if k is step or k == step else v for k, v in table.items()
        }
    row = cast("list[object]", node)
    return [_replaced(v, rest, value) if at == step else v for at, v in enumerate(row)]
