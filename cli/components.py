"""What is installed with ocistow, as a bill of materials: `python -m ocistow.cli.components`.

Given a file, the table of licences after `MARK` in it is replaced. Source: CycloneDX 1.5, JSON.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import click

MARK = "<!-- What follows is written by python -m ocistow.cli.components docs/licences.md -->\n"

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_ELSEWHERE = ("extra ==", "PyPy", '"nt"', '"win32"', "python_version <")  # in conditions
_SAME = {"Apache 2.0": "Apache-2.0"}  # how some call what SPDX calls otherwise
_ROOT = "ocistow"


@dataclass(frozen=True, slots=True)
class Component:
    """A distribution that is installed.

    Attributes:
        licence: an SPDX expression, as its metadata say.
        needs: names of others, sorted.
    """

    name: str
    version: str
    summary: str
    licence: str
    needs: tuple[str, ...]

    @property
    def purl(self) -> str:
        """How others call it. Source: purl-spec, "pypi"."""
        return f"pkg:pypi/{self.name}@{self.version}"


def components() -> list[Component]:
    """Return ocistow, and then all that it needs here, sorted by name."""
    found: dict[str, Component] = {}
    pending = [_ROOT]
    while pending:
        if (name := pending.pop()) not in found:
            found[name] = _component(name)
            pending += found[name].needs
    return [found.pop(_ROOT), *(found[name] for name in sorted(found))]


def bill(parts: Sequence[Component]) -> dict[str, object]:
    """Return the document; the first part is what it is about. It has no time and no number."""
    known = {part.name: part.purl for part in parts}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "application", **_members(parts[0])}},
        "components": [{"type": "library", **_members(part)} for part in parts[1:]],
        "dependencies": [
            {"ref": part.purl, "dependsOn": [known[name] for name in part.needs]} for part in parts
        ],
    }


def table(parts: Sequence[Component]) -> str:
    """Return the licences in Markdown, without versions, which change."""
    rows: list[str] = []
    for part in parts[1:]:
        users = ", ".join(sorted(other.name for other in parts if part.name in other.needs))
        link = f"[{part.name}](https://pypi.org/project/{part.name}/)"
        rows.append(f"| {link} | {part.licence} | {users} |")
    return "\n".join(["| Library | Licence | Needed by |", "| --- | --- | --- |", *rows, ""])


def replaced(text: str) -> str:
    """Return a document with the part after `MARK` as it should be."""
    return f"{text.partition(MARK)[0]}{MARK}\n{table(components())}"


def _component(name: str) -> Component:
    told = metadata.metadata(name).json
    licence = str(told.get("license_expression") or told.get("license") or "NOASSERTION")
    return Component(
        name,
        metadata.version(name),
        " ".join(str(told.get("summary", "")).split()).rstrip("."),
        _SAME.get(licence, licence),
        tuple(sorted(set(_needs(name)))),
    )


def _needs(name: str) -> Iterator[str]:
    for line in metadata.requires(name) or ():
        if not any(word in line for word in _ELSEWHERE):
            word = _NAME.match(line)
            assert word is not None, line
            yield metadata.metadata(word[0])["Name"].lower().replace("_", "-")


def _members(part: Component) -> dict[str, object]:
    is_expression = " " in part.licence
    return {
        "bom-ref": part.purl,
        "name": part.name,
        "version": part.version,
        "description": part.summary,
        "licenses": [
            {"expression": part.licence} if is_expression else {"license": {"id": part.licence}}
        ],
        "purl": part.purl,
    }


def main() -> None:
    """Print the bill of materials, or write the table into the file that is the only argument."""
    if len(sys.argv) > 1:
        file = Path(sys.argv[1])
        file.write_text(replaced(file.read_text()))
    else:
        click.echo(json.dumps(bill(components()), indent=2))


if __name__ == "__main__":
    main()
