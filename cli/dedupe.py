"""`ocistow dedupe`: let layouts elsewhere share the store's blobs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from ..oci.errors import NotFound
from ..oci.wording import about, printable
from ..store.disk import Disk
from ..store.sharing.dedupe import plan
from ..store.sharing.duplicates import Left, Mode, Plan, Tally
from ..store.sharing.journal import close_journal, journals
from ..store.sharing.replacement import Outcome, carry_out
from ..store.sharing.undo import Undone
from ..store.sharing.undo import undo as undo_journal
from ..store.store import Store
from .config import PROGRESS, Settings
from .exits import FINDINGS
from .options import bytes_option, json_option, pass_settings
from .output import count, document, line, sizes, table
from .progress import Display
from .signals import ending_soon

_COLUMNS = ("LAYOUT", "BLOBS", "SHARED", "TO SHARE", "FREED")
_SHOWN = 20  # lines about what is left alone


@click.command()
@click.argument("paths", metavar="DIR...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Only tell what would be done, and freed.")
@click.option(
    "--mode",
    type=click.Choice([mode.value for mode in Mode]),
    default=Mode.AUTO.value,
    show_default=True,
    help="How blobs share bytes; auto takes reflinks where the file system has them.",
)
@click.option(
    "--undo",
    is_flag=True,
    help="Give files of their own back, as a journal says: the last, or that given for DIR.",
)
@click.option("--progress", type=click.Choice(PROGRESS), help="How to show it.  [default: auto]")
@json_option
@bytes_option
@pass_settings
def dedupe(
    settings: Settings,
    paths: tuple[Path, ...],
    dry_run: bool,
    mode: str,
    undo: bool,
    progress: str | None,
    as_json: bool,
    exactly: bool,
) -> int:
    """Let layouts elsewhere share the store's blobs.

    Finds image layouts at and below DIR (pack's layout-repo-dir, a CI cache, a registry's root
    such as zot's), verifies their blobs, takes them into the store and replaces each duplicate.
    Files open for writing, indexes and all that is no blob are left alone; so is a blob that is
    not what its name says, and then the exit status is 4.

    A hard link is the store's own file, read-only and the store's owner's: who changes it,
    changes every image that has it. A reflink keeps the file as it is. See docs/dedupe.md.
    """
    if undo:
        if dry_run or len(paths) > 1:
            raise click.UsageError("--undo takes one journal at most, and nothing else")
        return _undo(settings, *paths, as_json=as_json, exactly=exactly)
    if not paths:
        raise click.UsageError("missing argument 'DIR...'")
    outcome: Outcome | None = None
    with ending_soon(), Display(progress or settings.progress) as display:
        watch = display.amount("verifying")
        if dry_run and not settings.store.exists():
            with about("reading the blobs"):
                made = plan(paths, _above(settings.store), Mode(mode), watch)
        else:
            with (
                about(f"deduplicating into {settings.store}"),
                Store.create(settings.store) as store,
            ):
                made = plan(paths, store.blobs, Mode(mode), watch)
                if not dry_run:
                    outcome = carry_out(made, store, Disk(), display.amount("sharing"))
    left = [*made.left, *(outcome.left if outcome else ())]
    if as_json:
        document(_members(made, outcome, left))
    else:
        _print(made, outcome, exactly=exactly)
        _tell(left)
    return FINDINGS if any(one.is_wrong for one in left) else 0


def _undo(settings: Settings, journal: Path | None = None, *, as_json: bool, exactly: bool) -> int:
    with ending_soon(), about(f"undoing in {settings.store}"):
        if journal is None:
            if not (found := journals(settings.store)):
                raise NotFound(f"a journal of dedupe in {settings.store}")
            journal = found[-1]
        undone = undo_journal(journal, Disk())
        if not undone.left:
            journal = close_journal(journal, Disk())
    if as_json:
        document(_undone_members(undone, journal))
    else:
        line(
            f"{count(undone.restored, 'file')} restored, {sizes(exactly=exactly)(undone.taken)} "
            f"taken, {undone.untouched} as they were"
        )
        _tell(undone.left)
    return FINDINGS if undone.left else 0


def _above(store: Path) -> Path:
    """Return the directory that a store would be made in, or the next above that is there."""
    return next(path for path in store.resolve().parents if path.is_dir())


def _print(made: Plan, outcome: Outcome | None, *, exactly: bool) -> None:
    size = sizes(exactly=exactly)
    kind = "hard link" if made.mode is Mode.HARDLINK else "reflink"
    if outcome is None:
        rows = [[str(t.path), *_cells(t, exactly=exactly)] for t in made.layouts]
        total = ["total", *_cells(made.total, exactly=exactly)]
        table(_COLUMNS, [*rows, total], right=range(1, 5))
        links, taken_in, freed = made.total.links, made.taken_in, made.freed
        if made.copied:
            line(f"of this, {size(made.copied)} are needed for copies of files of other users")
    else:
        links, taken_in, freed = outcome.links, outcome.taken_in, outcome.freed
    would = "would be " if outcome is None else ""
    line(
        f"{count(links, kind)} {would}made in {count(len(made.layouts), 'layout')}, "
        f"{count(taken_in, 'blob')} {would}taken in, {size(freed)} {would}freed"
    )
    if exposed := made.exposed:
        line(
            f"{count(exposed, 'file')} {would}readable for all who reach the directory, unlike "
            "before; --mode reflink would keep modes, where the file system has reflinks",
            aside=True,
        )
    if outcome is not None and outcome.journal is not None:
        line(f"to undo: ocistow dedupe --undo {outcome.journal}")


def _cells(tally: Tally, *, exactly: bool) -> list[str]:
    numbers = map(str, (tally.blobs, tally.shared, tally.links))
    return [*numbers, sizes(exactly=exactly)(tally.freed)]


def _tell(left: Sequence[Left]) -> None:
    for one in sorted(left, key=lambda one: not one.is_wrong)[:_SHOWN]:
        click.echo(f"left alone: {printable(f'{one.path}: {one.why}')}", err=True)
    if len(left) > _SHOWN:
        click.echo(f"left alone: {len(left) - _SHOWN} more (--json has all)", err=True)


def _members(made: Plan, outcome: Outcome | None, left: Sequence[Left]) -> dict[str, object]:
    done = made if outcome is None else outcome
    return {
        "dryRun": outcome is None,
        "mode": made.mode,
        "layouts": [{"path": printable(str(t.path)), **_tally_members(t)} for t in made.layouts],
        "planned": {**_tally_members(made.total), "copiedBytes": made.copied},
        "links": made.total.links if outcome is None else outcome.links,
        "takenIn": done.taken_in,
        "freedBytes": done.freed,
        "exposed": made.exposed,
        "left": [_left_members(one) for one in left],
        "journal": str(outcome.journal) if outcome and outcome.journal else None,
    }


def _tally_members(tally: Tally) -> dict[str, object]:
    return {
        "blobs": tally.blobs,
        "shared": tally.shared,
        "toShare": tally.links,
        "freedBytes": tally.freed,
    }


def _left_members(one: Left) -> dict[str, object]:
    return {"path": printable(str(one.path)), "why": printable(one.why), "wrong": one.is_wrong}


def _undone_members(undone: Undone, journal: Path) -> dict[str, object]:
    return {
        "journal": str(journal),
        "restored": undone.restored,
        "untouched": undone.untouched,
        "takenBytes": undone.taken,
        "left": [_left_members(one) for one in undone.left],
    }
