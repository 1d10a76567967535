"""What `mkdocs.yml` needs besides: the README and its like are pages of the site, too."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import cast

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

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


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Give headings the anchors that they have on GitHub, and our links therefore name."""
    options = cast("dict[str, dict[str, object]]", config["mdx_configs"])  # of extensions
    options["toc"]["slugify"] = anchor
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that do not lie below `docs`."""
    for source, page in PAGES.items():
        path = ROOT / source
        text = decisions(path) if path.is_dir() else path.read_text()
        files.append(File.generated(config, page, content=text))
    for result in (ROOT / "benchmarks" / "results").glob("*.json"):
        place = str(result.relative_to(ROOT))
        files.append(File.generated(config, place, abs_src_path=str(result)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Let links lead where they do in the repository, and leave of a fence only its language.

    Markdown of Python knows no more of a fence.
    """
    place = page.file.src_uri
    source = next((ROOT / s for s, p in PAGES.items() if p == place), ROOT / "docs" / place)
    text = markdown if source.is_dir() else moved(markdown, source, place)
    return _FENCE.sub(r"\1", text)


def moved(text: str, source: Path, page: str) -> str:
    """Return the text of a file with the links that it needs as a page of the site."""

    def target(link: re.Match[str]) -> str:
        place = str((source.parent / link[1]).resolve().relative_to(ROOT))
        place = PAGES.get(place) or place.removeprefix("docs/")
        return posixpath.relpath(place, posixpath.dirname(page) or ".")

    return _LINK.sub(target, text)


def anchor(heading: str, separator: str) -> str:
    """Return the anchor that GitHub gives a heading; an extension of Markdown's calls it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", separator)


def decisions(directory: Path) -> str:
    """Return a page that leads to every decision."""
    pages = sorted(directory.glob("*.md"))
    titles = [page.read_text().partition("\n")[0].removeprefix("# ") for page in pages]
    rows = [f"* [{t}]({page.name})" for t, page in zip(titles, pages, strict=True)]
    return "\n".join(["# What was decided, and why", "", *rows, ""])
