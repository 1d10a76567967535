"""`ocistow ls`: which images there are."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import PurePosixPath

import click

from ..oci.errors import NotFound, OcistowError
from ..oci.wording import about, message_of
from ..store.store import Store
from .config import Settings
from .exits import status_of
from .images import RootView, read_roots
from .options import bytes_option, complete_name, json_option, pass_settings
from .output import line, listing, shown, sizes, table

_COLUMNS = ("NAME", "DIGEST", "SIZE", "PLATFORM")


@click.command()
@click.argument("words", nargs=-1, metavar="[NAME]...", shell_complete=complete_name)
@click.option("--quiet", "-q", is_flag=True, help="Print names only.")
@json_option
@bytes_option
@pass_settings
def ls(
    settings: Settings, words: tuple[str, ...], quiet: bool, as_json: bool, exactly: bool
) -> int:
    """List the images in the store.

    NAME is an image, a repository for all its tags, a registry or any other beginning of
    a path, or a pattern: `ls e.x/app`, `ls 'e.x/app:1.*'`, `ls '**/app'`.

    SIZE is what the image announces, whether shared or not. An image that cannot
    be read is listed without it, and makes the exit status that of its error.
    """
    if quiet and as_json:
        raise click.UsageError("--quiet and --json exclude each other")
    with about(f"reading {settings.store}"), Store.open(settings.store) as store:
        found = _Listing(store, words)
        if quiet:
            for name in found.names:
                line(shown(name))
        elif as_json:
            listing("images", (_members(name, root) for name, root in found.images()))
        else:
            _print(found.images(), exactly=exactly)
        for word in found.names.unmatched:
            found.note(NotFound(word))
    return found.status


class _Listing:
    """The images that words mean, one after the other.

    Attributes:
        status: the exit status, so far.
    """

    def __init__(self, store: Store, words: tuple[str, ...]) -> None:
        self._store = store
        self.names = store.names(words)
        self.status = 0

    def images(self) -> Iterator[tuple[PurePosixPath, RootView | None]]:
        """Yield the roots of every layout; None for one that cannot be read."""
        for name in self.names:
            roots: tuple[RootView, ...] = ()
            try:
                roots = read_roots(self._store.layout(name), look=False)
            except (OcistowError, PermissionError) as error:
                if isinstance(error, NotFound) and error.name == name:
                    continue  # removed since it was listed
                self.note(error, f"{shown(name)}: ")
            yield from ((name, root) for root in roots or (None,))

    def note(self, error: OcistowError | PermissionError, name: str = "") -> None:
        """Say what is wrong, and go on."""
        line(f"ocistow: {name}{message_of(error)}", aside=True)
        self.status = self.status or status_of(error)


def _print(found: Iterator[tuple[PurePosixPath, RootView | None]], *, exactly: bool) -> None:
    size = sizes(exactly=exactly)
    rows = (
        [
            shown(name),
            str(root.descriptor.digest) if root else "-",
            size(root.size) if root else "-",
            ", ".join(_platforms(root)) if root else "-",
        ]
        for name, root in found
    )
    first = list(islice(rows, 1))
    if first or sys.stdout.isatty():
        table(_COLUMNS, chain(first, rows), right=[2])


def _members(name: PurePosixPath, root: RootView | None) -> dict[str, object]:
    return {
        "name": shown(name),
        "path": str(name),
        "digest": str(root.descriptor.digest) if root else None,
        "mediaType": root.descriptor.media_type if root else None,
        "size": root.size if root else None,
        "platforms": _platforms(root) if root else [],
    }


def _platforms(root: RootView) -> list[str]:
    return [str(image.platform) for image in root.images if image.platform]
