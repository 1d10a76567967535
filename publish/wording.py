"""The words of a peer, as they may stand in a line of ours."""

from __future__ import annotations

MAX_WORDS = 300  # characters


def plain(text: str) -> str:
    """Return a peer's words as one printable line of bounded length."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= MAX_WORDS else f"{line[:MAX_WORDS]}…"
