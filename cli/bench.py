"""`ocistow bench`: ways of a build into a daemon, on this machine."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..oci.wording import about
from .access import docker_host_option
from .config import PROGRESS, Settings
from .options import complete_name, json_option, pass_settings
from .output import line, table
from .progress import Display
from .signals import ending_whole

if TYPE_CHECKING:  # most of what this needs is for those who run it
    from ..bench.builds import Build
    from ..bench.daemon import Daemon
    from ..bench.report import Report
    from ..publish.sink import Image

WAYS = ("daemon", "layout", "registry")
_SPACE = "ocistow-bench.invalid"  # no registry has this name
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("source", required=False, shell_complete=complete_name)
@click.option(
    "--only", type=click.Choice(WAYS), multiple=True, help="Compare with this way; may be repeated."
)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, metavar="N")
@click.option("--quick", is_flag=True, help="Without SOURCE: applications a tenth as large.")
@click.option("--html", type=_FILE, metavar="FILE", help="Write a page for a browser.")
@click.option("--output", type=_FILE, metavar="FILE", help="Write the JSON document.")
@click.option(
    "--compare", nargs=2, type=_FILE, metavar="OLD NEW", help="Only compare two such documents."
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default="/var/tmp",  # noqa: S108  # what is made below it has a name that nobody can guess
    show_default=True,
    metavar="DIR",
    help="Where to work.",
)
@docker_host_option
@click.option("--progress", type=click.Choice(PROGRESS), help="How to show it.  [default: auto]")
@json_option
@pass_settings
def bench(
    settings: Settings,
    source: str | None,
    only: tuple[str, ...],
    rounds: int,
    quick: bool,
    html: Path | None,
    output: Path | None,
    compare: tuple[Path, Path] | None,
    directory: Path,
    docker_host: str | None,
    progress: str | None,
    as_json: bool,
) -> None:
    """Measure ways of a build into a daemon.

    Four builds of one application (first, second with one file changed, unchanged, rebase) get into
    the Docker daemon in four ways: through ocistow; directly; through a plain image layout and
    skopeo; through an ephemeral registry. What is not installed is left out, and said. See
    docs/bench.md.

    SOURCE is an image of the store, or what `add` takes. Its lower layers become the run image, the
    others what buildpacks made. Without SOURCE, applications like Paketo's are made of Debian
    packages, which are downloaded once (250 MB).

    Images in the daemon have names below ocistow-bench.invalid, and are removed
    afterwards; others are not touched.
    """
    if compare is not None:
        _print_changes(*compare, as_json=as_json)
        return
    from ..bench.processes import ProgramFailed
    from ..bench.report import document
    from ..bench.servers import Missing

    what = source or "applications of Debian packages"
    try:
        with ending_whole(), _room(directory) as room:
            settings = replace(settings, progress=progress or settings.progress)
            report = _measured(settings, room, source, only, rounds, docker_host, quick=quick)
    except (ProgramFailed, Missing) as error:
        raise _CannotBegin(str(error)) from error
    text = document(report) + "\n"
    for file, content in ((output, text), (html, None)):
        if file is not None:
            _write(file, content if content is not None else _page(report, what))
    if as_json:
        line(text, end="")
    else:
        _print(report)


class _CannotBegin(click.ClickException):
    """Something that is measured, or measures, is not there."""

    exit_code = os.EX_UNAVAILABLE


@contextmanager
def _room(directory: Path) -> Generator[Path]:
    with tempfile.TemporaryDirectory(prefix="ocistow-bench-", dir=directory) as name:
        yield Path(name)


def _measured(
    settings: Settings,
    room: Path,
    source: str | None,
    only: tuple[str, ...],
    rounds: int,
    docker_host: str | None,
    *,
    quick: bool,
) -> Report:
    from ..bench.comparison import Contest
    from ..bench.daemon import used
    from ..bench.machine import this_machine
    from ..bench.measure import Result
    from ..bench.report import Report
    from ..bench.selection import cannot_mount, cannot_push, chosen

    started = datetime.now(UTC).isoformat(timespec="seconds")
    results: list[Result] = []
    with (
        used(docker_host, f"{_SPACE}/{room.name.lower()}") as daemon,
        Display(settings.progress) as display,
    ):
        progress = display.track("measuring")

        def watch(text: str) -> None:
            if progress is not None:
                progress.stage(text)

        ways, left = chosen(daemon, only)
        unmounted, unpushed = cannot_mount(), cannot_push()
        if unmounted:
            left["the mount of ocistow"] = f"{unmounted}; its store is written to directly"
        if unpushed:
            left["sending into a registry"] = unpushed
        watch("making the images")
        for name, build in _builds(settings, room, source, daemon, quick=quick).items():
            contest = Contest(
                room,
                build,
                daemon,
                ways,
                can_mount=not unmounted,
                has_registry=not unpushed,
                watch=lambda text: watch(f"rehearsal, {text}"),
            )
            failed = contest.rehearse()
            left |= failed
            going = [way for way in ways if way not in failed]
            contest = replace(contest, ways=going, watch=watch)
            results += contest.results(name, rounds)
    return Report(started, rounds, quick, this_machine(room), results, left)


def _builds(
    settings: Settings, room: Path, source: str | None, daemon: Daemon, *, quick: bool
) -> dict[str, Build]:
    from ..bench.builds import build_of, made_builds

    if source is None:
        return made_builds(room / "builds", quick=quick)
    with _opened(settings, room, source, daemon) as image:
        return {"image": build_of(room / "builds", image)}


@contextmanager
def _opened(settings: Settings, room: Path, source: str, daemon: Daemon) -> Generator[Image]:
    from ..publish.access import Access
    from ..publish.copy import read_image
    from ..publish.remote import store_source
    from ..publish.transports import is_source, open_source
    from ..store.store import Store

    if is_source(source):
        access = Access(docker_host=daemon.url)
        with (
            about(f"reading {source}"),
            Store.create(room / "scratch") as store,
            open_source(source, store, access=access) as opened,
        ):
            yield read_image(opened, lambda: None)
        return
    with (
        about(f"reading {source} of {settings.store}"),
        Store.open(settings.store) as store,
        store_source(store, store.find(source)) as opened,
    ):
        yield read_image(opened, lambda: None)


def _page(report: Report, what: str) -> str:
    from ..bench.page import page

    return page(report, what)


def _write(file: Path, content: str) -> None:
    from ..store.output import write_whole

    with about(f"writing {file}"):
        write_whole(file, content.encode())
    line(f"wrote {file}", aside=True)


def _print(report: Report) -> None:
    """Print a line for each step and way, and what was left out."""
    from ..bench.report import shown

    rows: list[list[str]] = []
    for result in report.results:
        for name in result.samples:
            told = ""
            if name != result.ours:
                ratio = result.ratio(name)
                told = f"{ratio.median:.2f} [{ratio.low:.2f} to {ratio.high:.2f}]"
            median = shown(result.median(name), result.unit)
            rows.append([result.scenario, result.step, name, median, told])
    table(("SCENARIO", "STEP", "WAY", "MEDIAN", "TIMES OURS"), rows, right=(3,))
    for name, why in report.skipped.items():
        line(f"left out: {name}: {why}")


def _print_changes(old: Path, new: Path, *, as_json: bool) -> None:
    from ..bench.report import shown
    from ..bench.runs import changes
    from .output import document

    found = changes(old, new)
    if as_json:
        members = [
            {
                **dict(zip(("scenario", "step", "way"), change.key, strict=True)),
                "unit": change.unit,
                "old": change.old[0],
                "new": change.new[0],
                "ratio": change.ratio,
                "clear": change.is_clear,
            }
            for change in found
        ]
        document({"changes": members})
        return
    rows = [
        [
            *change.key,
            shown(change.old[0], change.unit),
            shown(change.new[0], change.unit),
            f"{change.ratio:.2f}",
            "" if change.is_clear else "within its range",
        ]
        for change in found
    ]
    table(("SCENARIO", "STEP", "WAY", "OLD", "NEW", "RATIO", ""), rows, right=(3, 4, 5))
