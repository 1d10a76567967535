"""docs/troubleshooting.md is about messages that there are, and leaves no warning out."""

import ast
import errno
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from ocistow.cli.exits import STATUSES
from ocistow.store.verification.findings import Kind

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
FOLDERS = ("oci", "store", "fusefs", "publish", "lifecycle", "audit", "cli")
FOREIGN = {  # said by a system, a library or a registry
    *map(os.strerror, errno.errorcode),
    "UNAUTHORIZED",
    "DENIED",
    "CERTIFICATE_VERIFY_FAILED",
    "a traceback",
}
_VARIABLE = re.compile(r"\b(?:[A-Z]{2,}|[ABMN]|\w+\.json)\b|…")
_FORMAT = re.compile(r"%[sdr]|%\.\d+f|\0")


@cache
def texts() -> str:
    """Return every literal of the code; what an f-string puts in is a NUL."""
    literals = (n for n in nodes() if isinstance(n, ast.JoinedStr | ast.Constant))
    return "\n".join(map(literal, literals))


def nodes() -> Iterator[ast.AST]:
    """Yield the syntax of the code."""
    for folder in FOLDERS:
        for file in (ROOT / folder).rglob("*.py"):
            yield from ast.walk(ast.parse(file.read_text()))


def literal(node: ast.expr) -> str:
    """Return a literal; empty for what is none."""
    if isinstance(node, ast.JoinedStr):
        return "".join(literal(value) for value in node.values)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return "\0"


def messages() -> list[str]:
    """Return what stands in the first columns."""
    found: list[str] = []
    for line in PAGE.partition("## What `verify` finds")[0].splitlines():
        if line.startswith("| ") and not line.startswith(("| Message", "| ---")):
            found += re.findall(r"`([^`]+)`", line.split(" | ")[0])
    return found


def warnings() -> Iterator[str]:
    """Yield what is logged as a warning or an error, as far as it is a literal with words."""
    for node in nodes():
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("warning", "error", "exception")
            and ast.unparse(node.func.value) == "log"
        ):
            text = max(_FORMAT.split(literal(node.args[0])), key=len).strip(" :;")
            if text:
                yield text


@pytest.mark.parametrize("message", messages())
def test_a_message_is_in_the_code(message: str) -> None:
    if message in FOREIGN:
        return
    words = [part.strip(" :,") for part in _VARIABLE.split(message)]
    longest = max(words, key=len)
    assert len(longest) > 3
    assert longest in texts(), f"nothing says {longest!r}"


def test_every_warning_is_explained() -> None:
    said = list(warnings())
    assert len(said) > 30
    assert [text for text in said if text not in PAGE] == []


def test_every_finding_is_explained() -> None:
    assert [kind for kind in Kind if f"`{kind}`" not in PAGE] == []


def test_every_status_is_explained() -> None:
    assert [status for status in STATUSES.values() if not re.search(rf"\b{status}\b", PAGE)] == []
