import json
import math

from hypothesis import given
from hypothesis import strategies as st

from ocistow.lifecycle.golang import json as gojson

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(VALUES)
def test_json_is_read_as_it_was_written(value: object) -> None:
    assert json.loads(gojson.encode(value)) == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_keep_every_bit(value: float) -> None:
    read = json.loads(gojson.encode(value), parse_int=float)
    assert (read, math.copysign(1, read)) == (value, math.copysign(1, value))


@given(st.text())
def test_text_can_stand_in_html_and_in_a_script(text: str) -> None:
    assert not set("<>&\u2028\u2029") & set(gojson.quote(text))
