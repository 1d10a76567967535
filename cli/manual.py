"""The manual page: `python -m ocistow.cli.manual docs/cli.md packaging/share/man/man1/ocistow.1`.

Commands and options are those of click, exit statuses those of the page that is given.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from .reference import described

_STATUS = re.compile(r"^\| ([\d, ]+) \| (.+) \|$", re.MULTILINE)
_FILES = (
    ("/var/lib/ocistow", "the store of root"),
    ("~/.local/share/ocistow", "the store of everybody else"),
    ("/etc/ocistow/config.toml, ~/.config/ocistow/config.toml", "settings"),
)
_ALSO = "fusermount3(1), mount(8), skopeo(1), umoci(1)"


def manual(page: str) -> str:
    """Return the manual page, in the macros of man(7)."""
    return "\n".join([*_lines(page), ""])


def _lines(page: str) -> Iterator[str]:
    (_, root, context), *below = described()
    yield '.TH OCISTOW 1 "" "" "User Commands"'
    yield from (".SH NAME", _plain("ocistow - a deduplicating store for OCI image layouts"))
    yield from (
        ".SH SYNOPSIS",
        ".B ocistow",
        r"[\fIOPTION\fR...] \fICOMMAND\fR [\fIARGUMENT\fR...]",
    )
    yield ".SH DESCRIPTION"
    yield from _help(root)
    yield ".SH OPTIONS"
    yield from _options(root, context)
    yield ".SH COMMANDS"
    for title, command, its in below:
        words = [title, *command.collect_usage_pieces(its)]
        yield f".SS {_plain(' '.join(words))}"
        yield from _help(command)
        yield from _options(command, its)
    yield from (".SH ENVIRONMENT", "Every option is also a variable:")
    yield _plain(
        "--store is OCISTOW_STORE, --log-format is OCISTOW_LOG_FORMAT, --json is OCISTOW_JSON=1."
    )
    yield ".SH FILES"
    for name, what in _FILES:
        yield from (".TP", f".I {_plain(name)}", _plain(what))
    yield ".SH EXIT STATUS"
    for status, when in _STATUS.findall(page):
        yield from (".TP", f".B {status}", _plain(when))
    yield from (".SH SEE ALSO", _plain(_ALSO))


def _help(command: click.Command) -> Iterator[str]:
    for paragraph in (command.help or "").strip().split("\n\n"):
        lines = inspect.cleandoc(paragraph).splitlines()
        if lines[0] == "\b":  # as it is, says click
            yield from (".PP", ".nf", *map(_plain, lines[1:]), ".fi")
        else:
            yield from (".PP", _plain(" ".join(map(str.strip, lines))))


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if isinstance(parameter, click.Option) and record is not None:
            yield from (".TP", f".B {_plain(record[0])}", _plain(record[1]))


def _plain(text: str) -> str:
    """Return text that says to roff nothing but itself."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{text}" if text.startswith((".", "'")) else text


def main() -> None:
    """Write the page that the second argument names; the first is docs/cli.md."""
    page, written = map(Path, sys.argv[1:])
    written.write_text(manual(page.read_text()))


if __name__ == "__main__":
    main()
