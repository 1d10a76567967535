import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocistow.oci.wording import MAX_VALUE, MAX_WORDS, plain, printable, quoted


@given(st.text(alphabet=st.characters(), max_size=40))
def test_printable_is_one_line_that_any_terminal_takes(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1
    shown.encode()


def test_printable_keeps_what_can_be_read() -> None:
    assert printable("repö/tag ☃") == "repö/tag ☃"
    assert printable("a\nb\udcff\x1b") == r"a\nb\udcff\x1b"


@given(st.text(max_size=1000))
def test_a_peers_words_are_one_short_line(text: str) -> None:
    words = plain(text)
    assert words.isprintable()
    assert len(words) <= MAX_WORDS + 1


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("a\nb", r"'a\nb'"),
        (None, "None"),
        (7, "7"),
        (True, "True"),
        ({"a": 1}, "dict"),
        ([1], "list"),
        ("x" * 1000, repr("x" * MAX_VALUE)),
    ],
)
def test_a_quoted_value_is_short(value: object, words: str) -> None:
    assert quoted(value) == words
