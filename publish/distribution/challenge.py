"""What a server wants to see before it answers: the `WWW-Authenticate` header.

Source: RFC 9110, 11.3 and 11.6.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ...oci.errors import InvalidContent
from ...oci.wording import plain

BASIC = "basic"
BEARER = "bearer"

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  # a token of the grammar
_COMMAS = re.compile(r"[ \t,]*")
_SCHEME = re.compile(rf"({_TOKEN})(?=[ \t,]|$)[ \t]*")
_ALONE = re.compile(r"([A-Za-z0-9._~+/-]+=*)[ \t]*(?=,|$)")
# An unquoted value should be a token; some registries send a whole URL.
_PARAMETER = re.compile(
    rf"""({_TOKEN})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^ \t,"=][^ \t,"]*))[ \t]*(?=,|$)"""
)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to authenticate.

    Attributes:
        scheme: in lower case, such as `basic`.
        parameters: by lower-case name; of a name given twice, the first.
        token68: what some schemes have instead of parameters.
    """

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict[str, str])
    token68: str = ""


def parse_challenges(lines: Iterable[str]) -> list[Challenge]:
    """Read every challenge of the header's lines, in their order.

    Raises:
        InvalidContent: a line is malformed.
    """
    return [challenge for line in lines for challenge in _parse(line)]


def _parse(line: str) -> list[Challenge]:
    found: list[Challenge] = []
    parameters: dict[str, str] = {}  # of the last challenge
    at = _next(line, 0)
    while at < len(line):
        match = _PARAMETER.match(line, at) if found else None
        if match:
            name, quoted, unquoted = match.groups()
            value = unquoted if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            parameters.setdefault(name.lower(), value)
        elif match := _SCHEME.match(line, at):
            scheme, parameters = match[1].lower(), {}
            alone = None if _PARAMETER.match(line, match.end()) else _ALONE.match(line, match.end())
            found.append(Challenge(scheme, parameters, alone[1] if alone else ""))
            match = alone or match
        else:
            raise InvalidContent(f"not a WWW-Authenticate header: {plain(line)!r}")
        at = _next(line, match.end())
    return found


def _next(line: str, at: int) -> int:
    """Return where the next element of a list begins; empty ones do not count."""
    match = _COMMAS.match(line, at)
    assert match is not None
    return match.end()
