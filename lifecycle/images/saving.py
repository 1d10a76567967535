"""Giving an image its names, and saying which it has now.

Source: Go's lifecycle, phase/save.go.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...oci.errors import InvalidContent
from ...publish.source import Source
from ..console import Console
from .image import Saved, Target

_SHORT = 12  # characters of an image's identifier


def save(target: Target, source: Source, references: Sequence[str], console: Console) -> Saved:
    """Save the image of `source` under all of its names, the first of which is the image's.

    Raises:
        InvalidContent: it could not be given some of them, and has the others.
        NotFound, RegistryError, OSError: it could be given none of them.
    """
    name = target.name(references[0])
    with console.timer(f"Saving {name}..."):
        console.info(f"Saving {name}...")
        saved = target.save(source, references)
        by_digest = saved.digest is not None and not target.keeps_identifier
        console.info(f"*** Images ({saved.digest if by_digest else _short(saved)}):")
        failed = dict(saved.failed)
        for name in (*saved.names, *failed):
            console.info(f"      {name} - {failed[name]}" if name in failed else f"      {name}")
        what = f"Digest: {saved.digest}" if by_digest else f"Image ID: {saved.image_id.encoded}"
        console.debug(f"\n*** {what}")
        if saved.manifest_size:
            console.debug(f"\n*** Manifest Size: {saved.manifest_size}")
    if saved.failed:
        causes = ",".join(f"[{name}: {cause}]" for name, cause in saved.failed)
        raise InvalidContent(f"failed to write image to the following tags: {causes}")
    return saved


def _short(saved: Saved) -> str:
    return saved.image_id.encoded[:_SHORT]
