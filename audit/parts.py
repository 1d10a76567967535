"""What pages are made of: files beside this one, and what a policy calls them."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path


def part(name: str) -> str:
    """Return the text of a file beside this one, such as the style sheet."""
    return Path(__file__).with_name(name).read_text("utf-8")


def hash_source(text: str) -> str:
    """Return what a policy calls an element with this text. Source: CSP level 3, "hash-source"."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
