"""`ocistow bench`: ways of a build into a daemon, on this machine."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..oci.wording import about, printable
from .access import docker_host_option
from .config import PROGRESS, Settings
from .options import complete_name, json_option, pass_settings
from .output import count, line, table
from .signals import ending_whole

if TYPE_CHECKING:  # most of what this needs is for those who run it
    from ..bench.measure import Result
    from ..bench.report import Report

WAYS = ("daemon", "full", "layout", "uncompressed", "registry")
_ONE_BY_ONE = ", in the same round; ~ where it is over 1 in some rounds and under 1 in others"
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
    the Docker daemon in several ways: through ocistow; directly, with or without the run image's
    layers; through a plain image layout and skopeo, compressed or not; through an ephemeral
    registry. What is not installed is left out, and
    said. See docs/bench.md.

    SOURCE is an image of the store, or what `add` takes. Its lower layers become the run image, the
    others what buildpacks made. Without SOURCE, applications like Paketo's are made of Debian
    packages, which are downloaded once (250 MB).

    Images in the daemon have names below ocistow-bench.invalid, and are removed
    afterwards; others are not touched.
    """
    if compare is not None:
        if source or html or output:
            raise click.UsageError(
                "--compare measures nothing: it excludes SOURCE, --html, --output"
            )
        from .changes import print_changes

        print_changes(*compare, as_json=as_json)
        return
    if quick and source:
        raise click.UsageError("--quick is about the images that are made without SOURCE")
    for file in (output, html):
        if file is not None:
            _check_place(file)
    from ..bench.processes import ProgramFailed
    from ..bench.report import document
    from ..bench.servers import Missing
    from .measuring import Task, measured

    task = Task(source, only, rounds, quick, docker_host)
    try:
        with ending_whole(), _room(directory) as room:
            report = measured(replace(settings, progress=progress or settings.progress), room, task)
    except (ProgramFailed, Missing) as error:
        raise _CannotBegin(str(error)) from error
    text = document(report) + "\n"
    if as_json:
        line(text, end="")
    else:
        _print(report)
    if output is not None:
        _write(output, text)
    if html is not None:
        from ..bench.page import page

        _write(html, page(report))


class _CannotBegin(click.ClickException):
    """Something that is measured, or measures, is not there."""

    exit_code = os.EX_UNAVAILABLE


@contextmanager
def _room(directory: Path) -> Generator[Path]:
    with tempfile.TemporaryDirectory(prefix="ocistow-bench-", dir=directory) as name:
        yield Path(name)


def _check_place(file: Path) -> None:
    """Refuse before anything is measured what cannot be written in the end."""
    with about(f"writing {file}"):
        os.close(os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        if not os.access(file if file.exists() else file.parent, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))


def _write(file: Path, content: str) -> None:
    from ..store.output import write_whole

    with about(f"writing {file}"):
        write_whole(file, content.encode())
    line(f"wrote {file}", aside=True)


def _print(report: Report) -> None:
    """Print a line for each step, of all ways, and what was left out."""
    from ..bench.report import shown, times
    from ..bench.rows import rows_of, ways_of

    def cell(result: Result, way: str) -> str:
        if way not in result.samples:
            return ""
        median = shown(result.median(way), result.unit)
        return median if way == result.ours else f"{median} {times(result.ratio(way)):>5}"

    ways = ways_of(report.results)
    rows = [
        [f"  {row.part}" if row.part else row.build, *(cell(row.result, way) for way in ways)]
        for row in rows_of(report.results)
    ]
    columns = range(1, len(ways) + 1)
    table(("BUILD", *(way.upper() for way in ways)), rows, right=columns)
    line(f"of {printable(report.what)}")
    line(
        f"medians of {count(report.rounds, 'round')}; then how many times as much as {ways[0]}"
        + _ONE_BY_ONE * (report.rounds > 1)
    )
    for name, why in report.skipped.items():
        line(f"left out: {name}: {' '.join(printable(why).split())}")
