"""Patterns match what they match in Go."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocistow.lifecycle.golang.patterns import Pattern, cleaned
from ocistow.oci.errors import InvalidContent

from .conftest import Golden

pytestmark = pytest.mark.golang

PIECES = [b"a", b"b", b"/", b"*", b"?", b"[", b"]", b"^", b"-", b"\\", b".", "é".encode(), b"\xff"]
PATTERNS = st.lists(
    st.sampled_from([*PIECES, b"[a-b]", b"[^a]", "[^é]".encode(), "[à-ÿ]".encode(), b"[a\\]*]"]),
    max_size=8,
).map(b"".join)
PATHS = st.lists(st.sampled_from([b"a", b"b", b"ab", b"/", b"]", b".", "é".encode(), b"\xff"]))


def words(pattern: bytes, paths: list[bytes]) -> list[str]:
    parsed = Pattern.parse(pattern)
    found: list[str] = []
    for path in paths:
        try:
            found.append("yes" if parsed.matches(path) else "no")
        except InvalidContent as error:
            found.append(str(error))
    return found


@settings(max_examples=400)
@given(pattern=PATTERNS, paths=st.lists(PATHS.map(b"".join), min_size=1, max_size=10))
def test_patterns_are_gos(golden: Golden, pattern: bytes, paths: list[bytes]) -> None:
    assert words(cleaned(pattern), paths) == golden.matches(pattern, paths)


@pytest.mark.parametrize(
    ("pattern", "path", "word"),
    [
        (b"*.jar", b"app.jar", "yes"),
        (b"*.jar", b"lib/app.jar", "no"),
        (b"lib/*", b"lib/.hidden", "yes"),
        (b"**/*.jar", b"lib/app.jar", "yes"),
        (b"[a-c]?", b"bx", "yes"),
        (b"\\*", b"*", "yes"),
        (b"a*[", b"ab", "syntax error in pattern"),
        (b"a*[", b"b", "no"),
    ],
)
def test_what_patterns_match(golden: Golden, pattern: bytes, path: bytes, word: str) -> None:
    assert words(pattern, [path]) == golden.matches(pattern, [path]) == [word]
