"""Every command with its options, as docs/cli.md has them: `python -m ocistow.cli.reference`.

Given a file, the part of it after `MARK` is replaced.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from .commands import COMMANDS, commands

MARK = "<!-- What follows is written by python -m ocistow.cli.reference docs/cli.md -->\n"
_WIDTH = 100


def reference() -> str:
    """Return the help of the program and of every command, in Markdown."""
    return "\n".join(_section(title, command, its) for title, command, its in described())


def described() -> Iterator[tuple[str, click.Command, click.Context]]:
    """Yield the program, every command and every command below one, each as it is called."""
    root = _context(commands, "ocistow", None)
    yield "ocistow", commands, root
    for name in _names():
        command = commands.get_command(root, name)
        assert command is not None
        yield from _described(f"ocistow {name}", command, _context(command, name, root))


def replaced(text: str) -> str:
    """Return a document with the part after `MARK` as it should be."""
    return f"{text.partition(MARK)[0]}{MARK}\n{reference()}"


def _names() -> Iterator[str]:
    for names in COMMANDS.values():
        yield from names


def _described(
    title: str, command: click.Command, context: click.Context
) -> Iterator[tuple[str, click.Command, click.Context]]:
    yield title, command, context
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from _described(f"{title} {name}", below, _context(below, name, context))


def _context(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
    return click.Context(
        command,
        info_name=name,
        parent=parent,
        terminal_width=_WIDTH,
        max_content_width=_WIDTH,
        help_option_names=["-h", "--help"],
    )


def _section(title: str, command: click.Command, context: click.Context) -> str:
    return f"## {title}\n\n```\n{command.get_help(context).rstrip()}\n```\n"


def main() -> None:
    """Print the reference, or write it into the file that is the only argument."""
    if len(sys.argv) > 1:
        file = Path(sys.argv[1])
        file.write_text(replaced(file.read_text()))
    else:
        click.echo(reference(), nl=False)


if __name__ == "__main__":
    main()
