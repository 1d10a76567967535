"""What a page shows to be typed, and what it says that comes of it.

A `console` block has commands after `$ `, which go on in lines after `> `, and below each what it
prints; nothing, if that is not the page's subject. `<!-- console … -->` has commands that are run
and not shown. A block below a line `_Not run by a test: REASON._` is not run.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_BLOCK = re.compile(
    r"^(?:_Not run by a test: (?P<reason>[^\n]+)\._\n\n)?"
    r"```(?P<language>[^\n]*)\n(?P<text>.*?)^```$"
    r"|^<!-- console\n(?P<hidden>.*?)^-->$",
    re.DOTALL | re.MULTILINE,
)
_LOOSE = re.compile(
    r"(?P<digest>\bsha256:[0-9a-f]*…?)"
    r"|(?P<time>\b(?:\d{4}-\d\d-\d\dT[\d:.]+Z|\d{8}T\d{6}\.\d+Z))"
    r"|(?P<amount>\b\d+(?:\.\d+)? ?(?:B|[kMG]B|m?s)\b)"
    r"|(?P<left>…)"
    r"|(?P<space> +)"
)
_PATTERNS = {
    "digest": r"sha256:[0-9a-f]+…?",
    "time": r"[\dTZ:.-]+",
    "amount": r"\d+(?:\.\d+)? ?(?:B|[kMG]B|m?s)",
    "left": r".*",
    "space": r" +",
}


@dataclass(frozen=True, slots=True)
class Block:
    """A block between fences.

    Attributes:
        reason: why it is not run; None if it is.
    """

    language: str
    text: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    Attributes:
        output: what the page shows of it; empty if nothing.
    """

    text: str
    output: tuple[str, ...]


def blocks(page: Path) -> Iterator[Block]:
    """Yield what is between fences, and what is run and not shown."""
    for found in _BLOCK.finditer(page.read_text()):
        if found["hidden"] is not None:
            yield Block("console", found["hidden"], None)
        else:
            yield Block(found["language"], found["text"], found["reason"])


def commands(page: Path) -> list[Command]:
    """Return what is to be run, in order."""
    shown = "".join(b.text for b in blocks(page) if b.language == "console" and b.reason is None)
    return list(parsed(shown))


def parsed(text: str) -> Iterator[Command]:
    """Yield the commands of a block."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines = part.rstrip("\n").splitlines()
        more = 1
        while more < len(lines) and lines[more].startswith("> "):
            more += 1
        typed = [lines[0], *(line.removeprefix("> ") for line in lines[1:more])]
        yield Command("\n".join(typed), tuple(lines[more:]))


def differs(shown: tuple[str, ...], printed: str) -> bool:
    """Tell whether a command printed something else than its page shows.

    Digests, sizes and times may differ; `…` stands for anything, and as a line for any lines.
    """
    pattern = "".join(r"(?:.*\n)*" if line == "…" else f"{_loose(line)} *\n" for line in shown)
    return bool(shown) and re.fullmatch(pattern, printed) is None


def _loose(line: str) -> str:
    parts: list[str] = []
    end = 0
    for found in _LOOSE.finditer(line):
        assert found.lastgroup is not None
        parts += [re.escape(line[end : found.start()]), _PATTERNS[found.lastgroup]]
        end = found.end()
    return "".join([*parts, re.escape(line[end:])])
