"""The table of flags in docs/phases.md: `python -m ocistow.lifecycle.reference docs/phases.md`."""

from __future__ import annotations

import sys
from pathlib import Path

from .invocation.arguments import ARGUMENTS, Argument, Phase
from .platform_api import PLATFORM_APIS, Version

BEGIN = "<!-- What follows is written by python -m ocistow.lifecycle.reference docs/phases.md -->\n"
END = "<!-- end -->\n"


def table() -> str:
    """Return every flag with its variables, its default and the phases that have it, as Markdown.

    Where not every version of the Platform API has it, the first that does stands in its cell.
    """
    letters = [phase.letter for phase in Phase]
    lines = [_row("Flag", "Environment", "Default", *letters), _row(*["---"] * (3 + len(letters)))]
    lines += [_row(*_cells(argument)) for argument in ARGUMENTS]
    return "".join(lines)


def replaced(text: str) -> str:
    """Return a document with the part between `BEGIN` and `END` as it should be."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def _cells(argument: Argument) -> list[str]:
    default = argument.default
    shown = f"`{default}`" if default not in ("", (), False) else ""
    variables = ", ".join(f"`{name}`" for name in argument.variables)
    return [f"`-{argument.name}`", variables, shown, *(_since(argument, each) for each in Phase)]


def _since(argument: Argument, phase: Phase) -> str:
    having = [api for api in PLATFORM_APIS if argument.of(phase, api)]
    if not having:
        return ""
    if having[-1] != PLATFORM_APIS[-1]:
        return f"< {Version(0, having[-1].minor + 1)}"
    return "•" if having[0] == PLATFORM_APIS[0] else str(having[0])


def main() -> None:
    """Write the table into the file that is the only argument."""
    file = Path(sys.argv[1])
    file.write_text(replaced(file.read_text()))


if __name__ == "__main__":
    main()
