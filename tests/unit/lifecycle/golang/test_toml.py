"""What the goldens hold was printed by Go: BurntSushi/toml 1.6.0 and encoding/json of Go 1.26."""

import math
import tomllib

import pytest
from hypothesis import given

from ocistow.lifecycle.golang import json as gojson
from ocistow.lifecycle.golang import toml as gotoml
from ocistow.lifecycle.golang.json import Struct
from ocistow.lifecycle.golang.toml import Literal
from ocistow.oci.errors import InvalidContent
from ocistow.testing.tables import tables

DOCUMENT = r"""
whole = 1.0
million = 1000000.0
most = 123456.5
small = 0.0001
tiny = 0.00001
tiniest = 1e-7
large = 1e20
larger = 1e21
nothing = -0.0
integer = -9223372036854775808
text = "<a&b>\"\\\t\b\f\u007f\u001f\u2028é"
"quoted key" = true
when = 1979-05-27T07:32:00.5Z
where = 1979-05-27T00:32:00-07:00
local = 1979-05-27T07:32:00
day = 1979-05-27
clock = 07:32:00.25
none = []
mixed = [1, "a", [2.5]]
[empty]
[z.y]
b = 1
[[z.y.list]]
inline = [[1], []]
[[z.y.list]]
[z.y.list.deep]
"""
TOML_BY_GO = r"""
clock = 07:32:00.25
day = 1979-05-27
integer = -9223372036854775808
large = 1e+20
larger = 1e+21
local = 1979-05-27T07:32:00
million = 1e+06
mixed = [1, "a", [2.5]]
most = 123456.5
none = []
nothing = -0.0
"quoted key" = true
small = 0.0001
text = "<a&b>\"\\\t\b\f\u007f\u001f{}é"
tiniest = 1e-07
tiny = 1e-05
when = 1979-05-27T07:32:00.5Z
where = 1979-05-27T00:32:00-07:00
whole = 1.0

[empty]

[z]
  [z.y]
    b = 1

    [[z.y.list]]
      inline = [[1], []]

    [[z.y.list]]
      [z.y.list.deep]
""".removeprefix("\n").replace("{}", "\u2028")
JSON_BY_GO = (
    r'{"clock":"0000-01-01T07:32:00.25Z","day":"1979-05-27T00:00:00Z","empty":{},'
    r'"integer":-9223372036854775808,"large":100000000000000000000,"larger":1e+21,'
    r'"local":"1979-05-27T07:32:00Z","million":1000000,"mixed":[1,"a",[2.5]],"most":123456.5,'
    r'"none":[],"nothing":-0,"quoted key":true,"small":0.0001,'
    r'"text":"\u003ca\u0026b\u003e\"\\\t\b\f' + "\x7f" + r'\u001f\u2028é","tiniest":1e-7,'
    r'"tiny":0.00001,"when":"1979-05-27T07:32:00.5Z","where":"1979-05-27T00:32:00-07:00",'
    r'"whole":1,"z":{"y":{"b":1,"list":[{"inline":[[1],[]]},{"deep":{}}]}}}'
)


def test_toml_is_what_go_writes() -> None:
    assert gotoml.encode(tomllib.loads(DOCUMENT)).decode() == TOML_BY_GO


def test_json_is_what_go_writes() -> None:
    assert gojson.encode(tomllib.loads(DOCUMENT)).decode() == JSON_BY_GO


def test_structs_keep_their_order_and_leave_out_what_is_empty() -> None:
    struct = Struct(b="", a="", c={"z": 1, "y": None}).without_empty("a")
    assert gojson.encode(struct) == b'{"b":"","c":{"y":null,"z":1}}'
    assert gotoml.encode(struct) == b'b = ""\n\n[c]\n  z = 1\n'


def test_a_literal_is_written_as_it_is() -> None:
    assert gotoml.encode({"a": Literal('"\\u003c"')}) == b'a = "\\u003c"\n'


def test_bytes_that_were_no_utf_8_are_replaced_in_json() -> None:
    assert gojson.encode(b"a\xff\xfe".decode(errors="surrogateescape")) == rb'"a\ufffd\ufffd"'


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, object(), {1, 2}])
def test_json_cannot_say_everything(value: object) -> None:
    with pytest.raises(InvalidContent, match="JSON has no"):
        gojson.encode({"a": [value]})


def test_toml_cannot_say_everything() -> None:
    with pytest.raises(InvalidContent, match="TOML has no object"):
        gotoml.encode({"a": object()})
    with pytest.raises(InvalidContent, match="not UTF-8"):
        gotoml.encode({"a": "\udcff"})


@given(tables())
def test_toml_is_read_as_it_was_written(document: dict[str, object]) -> None:
    assert tomllib.loads(gotoml.encode(document).decode()) == document
