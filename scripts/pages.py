"""What `mkdocs.yml` needs besides: the README and its like are pages of the site, too."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {  # in the repository -> on the site
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
    "docs/adr": "adr/index.md",
}
_LINK = re.compile(r"(?<=\]\()(?!https?:)([^)#\s]+)")
_FENCE = re.compile(r"^(```\w+) .*$", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that do not lie below `docs`."""
    for source, page in PAGES.items():
        path = ROOT / source
        text = decisions(path) if path.is_dir() else moved(path)
        files.append(File.generated(config, page, content=text))
    for result in (ROOT / "benchmarks" / "results").glob("*.json"):
        place = str(result.relative_to(ROOT))
        files.append(File.generated(config, place, abs_src_path=str(result)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Leave of a fence only its language: Markdown of Python knows no more."""
    return _FENCE.sub(r"\1", markdown)


def moved(path: Path) -> str:
    """Return a page whose links lead to the same places when it lies in `docs`."""

    def target(link: re.Match[str]) -> str:
        place = str((path.parent / link[1]).resolve().relative_to(ROOT))
        return PAGES.get(place) or place.removeprefix("docs/")

    return _LINK.sub(target, path.read_text())


def decisions(directory: Path) -> str:
    """Return a page that leads to every decision."""
    pages = sorted(directory.glob("*.md"))
    titles = [page.read_text().partition("\n")[0].removeprefix("# ") for page in pages]
    rows = [f"* [{t}]({page.name})" for t, page in zip(titles, pages, strict=True)]
    return "\n".join(["# What was decided, and why", "", *rows, ""])
