"""Names that a rule lets go: old ones, or all but the newest of a repository.

A name is as old as its `index.json`: that is when the store got the image. When an image was
created is its maker's to say, and buildpacks say 1980.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath

from ...oci.digest import is_encoded
from ...oci.errors import InvalidContent, NotFound
from ...oci.image_layout import INDEX
from ..store import Store
from .survey import Identity, identity
from .sweep import Pace

_NS = 1_000_000_000  # in a second


@dataclass(frozen=True, slots=True)
class Rule:
    """Which names go; those for which all that is given holds.

    Attributes:
        keep_last: of each repository, so many stay that the store got last.
        older_than: seconds since the store got the image.
    """

    keep_last: int | None = None
    older_than: float | None = None


@dataclass(frozen=True, slots=True)
class Outdated:
    """A name that goes.

    Attributes:
        got: when the store got the image, in seconds since the epoch.
        index: its `index.json`, as it was then.
    """

    name: PurePosixPath
    got: float
    index: Identity


def outdated(
    store: Store, rule: Rule, words: Sequence[str] = (), now: float | None = None
) -> list[Outdated]:
    """Return the names that go, sorted; `words` are patterns of those that may.

    What a rule keeps of a repository is counted among the names that may go.

    Raises:
        InvalidContent: a word cannot mean any name.
    """
    now = time.time() if now is None else now
    repositories: dict[PurePosixPath, list[Outdated]] = defaultdict(list)
    for name in store.names(words):
        index = identity(str(store.layouts / name / INDEX))
        if index[0]:
            found = Outdated(name, index[1] / _NS, index)
            repositories[_repository(name)].append(found)
    gone: list[Outdated] = []
    for names in repositories.values():
        names.sort(key=lambda one: (-one.got, one.name))
        gone += names[rule.keep_last or 0 :]
    if rule.older_than is not None:
        gone = [one for one in gone if one.got < now - rule.older_than]
    return sorted(gone, key=lambda one: one.name)


def drop(store: Store, names: Sequence[Outdated], *, dry_run: bool = False) -> list[Outdated]:
    """Remove names, and return those that went.

    A name stays if it got another image meanwhile, or if somebody relies on its image just now.

    Raises:
        Busy: another process holds the store.
    """
    held = store.leases.held()
    gone: list[Outdated] = []
    pace = Pace()
    for one in names:
        layout = store.layout(one.name)
        with suppress(NotFound):
            try:
                if any(root.digest in held for root in layout.index().manifests):
                    continue
            except InvalidContent:
                continue  # whatever that is, it is not for a rule to remove
            if dry_run:
                gone.append(one)
                continue
            with store.lock.held():
                if identity(str(store.layouts / one.name / INDEX)) != one.index:
                    continue
                layout.remove()
            gone.append(one)
            pace.rest()
    return gone


def _repository(name: PurePosixPath) -> PurePosixPath:
    above = name.parent
    return above.parent if is_encoded(above.name, name.name) else above
