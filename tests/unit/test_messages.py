"""docs/troubleshooting.md is about messages that there are, and leaves none out."""

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
FOLDERS = ("oci", "store", "fusefs", "publish", "lifecycle", "audit", "cli", "bench")
FOREIGN = {  # said by a system, a library or a registry
    *map(os.strerror, errno.errorcode),
    "UNAUTHORIZED",
    "DENIED",
    "CERTIFICATE_VERIFY_FAILED",
    "a traceback",
    "failed to open /etc/mtab",
}
USAGE = {"click.UsageError", "click.BadParameter", "_wrong", "_malformed"}  # have a row for all
INTERNAL = (  # nobody sees them but the author of a bug
    "no value of ours",
    "of pairs to forget",
    "no path is that long",
    "are not the same",
    "ended before its work did",
    " has ended",
    "request \0",
    "a request of ",
    "JSON has no ",
    "TOML has no ",
)
ENOUGH = len("blocked by")
_VARIABLE = re.compile(r"\b(?:[A-Z]{2,}|[ABMN]|\w+\.json)\b|…")
_FORMAT = re.compile(r"%[sdr]|%\.\d+f|\0")


@cache
def texts() -> str:
    """Return every literal of the code; what an f-string puts in is a NUL."""
    literals = (n for n in nodes() if isinstance(n, ast.JoinedStr | ast.Constant))
    return "\n".join(map(literal, literals))


@cache
def nodes() -> list[ast.AST]:
    """Return the syntax of the code."""
    files = (file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))
    return [node for file in files for node in ast.walk(ast.parse(file.read_text()))]


def literal(node: ast.expr) -> str:
    """Return a literal; empty for what is none."""
    if isinstance(node, ast.JoinedStr):
        return "".join(literal(value) for value in node.values)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return "\0"


def messages() -> list[str]:
    """Return what stands in the first columns."""
    return [message for message, _ in rows("## What `verify` finds")]


def rows(until: str) -> Iterator[tuple[str, str]]:
    """Yield each message above a headline, and the second column beside it."""
    for line in PAGE.partition(until)[0].splitlines():
        if line.startswith("| ") and not line.startswith(("| Message", "| ---")):
            cells = line.split(" | ")
            for message in re.findall(r"`([^`]+)`", cells[0]):
                yield message, cells[1]


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


def errors() -> Iterator[str]:
    """Yield what is raised, as far as it has words of its own; a NUL stands for what it names."""
    for node in nodes():
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            given = [*node.exc.args, *(keyword.value for keyword in node.exc.keywords)]
            text = "\0".join(map(literal, given))
            words = max(text.split("\0"), key=len).strip(" :")
            if ast.unparse(node.exc.func) not in USAGE and " " in words:
                yield text


def statuses() -> Iterator[tuple[str, int]]:
    """Yield what is raised with a status of its class alone, and that."""
    above = {
        n.name: list(map(ast.unparse, n.bases)) for n in nodes() if isinstance(n, ast.ClassDef)
    }
    known = {error.__name__: status for error, status in STATUSES.items()}

    def status(name: str) -> int | None:
        return known.get(name) or next(filter(None, map(status, above.get(name, ()))), None)

    for node in nodes():
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            found = status(ast.unparse(node.exc.func))
            if found is not None:
                yield "\0".join(map(literal, node.exc.args)), found


def words_of(message: str) -> str:
    """Return the longest part of a message that is the same each time, in capitals or not."""
    parts = [message] if message in texts() else _VARIABLE.split(message)
    return max((part.strip(" :,") for part in parts), key=len)


def pattern(message: str) -> str:
    """Return what finds a message in what `errors` yields; if it is short, all of it must fit."""
    words = words_of(message)
    if message in texts() or len(words) >= ENOUGH:
        return re.escape(words)
    return "\0+".join(map(re.escape, _VARIABLE.split(message)))


@pytest.mark.parametrize("message", messages())
def test_a_message_is_in_the_code(message: str) -> None:
    if message in FOREIGN:
        return
    words = words_of(message)
    assert len(words) > 3
    assert words in texts(), f"nothing says {words!r}"


def test_every_warning_is_explained() -> None:
    said = list(warnings())
    assert len(said) > 30
    assert [text for text in said if text not in PAGE] == []


def test_every_error_is_explained() -> None:
    said = {text for text in errors() if not any(words in text for words in INTERNAL)}
    assert len(said) > 300
    known = re.compile("|".join(pattern(m) for m in messages() if m not in FOREIGN))
    assert sorted(text for text in said if not known.search(text)) == []


def test_the_status_is_that_of_the_error() -> None:
    """But of phases, which have their own; what a mount answers; and what is a finding."""
    told = [row for row in rows("## Phases") if not re.search(r"E[A-Z]{2}|\b4\b", row[1])]
    places = [(re.compile(pattern(m)), beside) for m, beside in told if m not in FOREIGN]
    wrong: list[tuple[str, int]] = []
    for text, status in statuses():
        found = [beside for place, beside in places if place.search(text)]
        if found and not any(str(status) in re.findall(r"\d+", beside) for beside in found):
            wrong.append((text, status))
    assert wrong == []


def test_every_finding_is_explained() -> None:
    assert [kind for kind in Kind if f"`{kind}`" not in PAGE] == []


def test_every_status_is_explained() -> None:
    assert [status for status in STATUSES.values() if not re.search(rf"\b{status}\b", PAGE)] == []
