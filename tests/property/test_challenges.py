"""A WWW-Authenticate header is read as RFC 9110 means it, or refused."""

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ocistow.oci.errors import InvalidContent
from ocistow.publish.distribution.challenge import Challenge, parse_challenges

TOKENS = st.text(f"{string.ascii_letters}{string.digits}!#$%&'*+-.^_`|~", min_size=1, max_size=12)
TOKEN68 = st.builds(
    "{}{}".format,
    st.text(f"{string.ascii_letters}{string.digits}-._~+/", min_size=1, max_size=20),
    st.sampled_from(["", "=", "=="]),
)
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"))
SPACE = st.sampled_from(["", " ", "\t", "  "])


def quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


@st.composite
def parameters(draw: st.DrawFn) -> tuple[str, str, str]:
    """Draw name, value and how they are written."""
    name, before, after = draw(TOKENS), draw(SPACE), draw(SPACE)
    bare = draw(st.booleans())
    value = draw(TOKENS if bare else VALUES)
    return name, value, f"{name}{before}={after}{value if bare else quoted(value)}"


@st.composite
def challenges(draw: st.DrawFn) -> tuple[Challenge, str]:
    """Draw a challenge, and how it is written."""
    scheme = draw(TOKENS)
    if draw(st.booleans()):
        token = draw(TOKEN68)
        return Challenge(scheme.lower(), {}, token), f"{scheme} {token}"
    given = draw(st.lists(parameters(), max_size=4, unique_by=lambda item: item[0].lower()))
    text = draw(st.sampled_from([", ", ",", " , ,"])).join(written for _, _, written in given)
    meant = {name.lower(): value for name, value, _ in given}
    return Challenge(scheme.lower(), meant), f"{scheme} {text}" if text else scheme


@given(st.lists(challenges(), max_size=4), st.sampled_from([", ", ",", ",\t,", " , "]))
def test_what_is_written_by_the_grammar_is_read(
    given: list[tuple[Challenge, str]], comma: str
) -> None:
    meant = [challenge for challenge, _ in given]
    texts = [text for _, text in given]
    assert parse_challenges([comma.join(texts)]) == meant  # in one line
    assert parse_challenges(texts) == meant  # or each in its own


@given(st.text(max_size=60) | st.text('Ba ="\\,\t', max_size=40))
@example('Basic realm="')
@example('"' * 1000)
@example("a " * 1000)
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    refusal = ""
    try:
        assert all(challenge.scheme for challenge in parse_challenges([text]))
    except InvalidContent as error:
        refusal = str(error)
    assert refusal == "" or refusal.isprintable()
    assert len(refusal) < 1000


SENT: list[tuple[str, list[tuple[str, dict[str, str]]]]] = [
    (
        'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",'
        'scope="repository:library/alpine:pull,push"',
        [
            (
                "bearer",
                {
                    "realm": "https://auth.docker.io/token",
                    "service": "registry.docker.io",
                    "scope": "repository:library/alpine:pull,push",
                },
            )
        ],
    ),
    (
        'Newauth realm="apps", type=1, title="Login to \\"apps\\"", Basic realm="simple"',
        [
            ("newauth", {"realm": "apps", "type": "1", "title": 'Login to "apps"'}),
            ("basic", {"realm": "simple"}),
        ],
    ),
    (
        "Bearer realm=https://a/t?x=y,service=s",
        [("bearer", {"realm": "https://a/t?x=y", "service": "s"})],
    ),
    ('BASIC realm="a", REALM="b"', [("basic", {"realm": "a"})]),
    ("Negotiate, Basic", [("negotiate", {}), ("basic", {})]),
]


@pytest.mark.parametrize(("text", "meant"), SENT)
def test_what_servers_send(text: str, meant: list[tuple[str, dict[str, str]]]) -> None:
    assert [(c.scheme, c.parameters) for c in parse_challenges([text])] == meant


@pytest.mark.parametrize(
    "text", ["=", 'realm="x"', 'Basic realm="x', 'Basic realm="x" y="z"', 'Basic "x"', "Basic é"]
)
def test_what_is_no_header_is_refused(text: str) -> None:
    with pytest.raises(InvalidContent, match=r"^not a WWW-Authenticate header: "):
        parse_challenges([text])
