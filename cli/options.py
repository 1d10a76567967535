"""Options that several commands have, and what they mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

import click

from ..oci.errors import InvalidContent, OcistowError
from ..oci.platform import Platform
from ..publish.access import JOBS, Access
from .access import access_options
from .config import MAX_JOBS, PROGRESS, Flags, Settings, of_process
from .report import Records

_P = ParamSpec("_P")
_R = TypeVar("_R")
_FILE = click.Path(path_type=Path)

pass_settings = click.make_pass_decorator(Settings)
json_option = click.option(
    "--json", "as_json", is_flag=True, envvar="OCISTOW_JSON", help="Print a JSON document."
)
bytes_option = click.option(
    "--bytes", "exactly", is_flag=True, envvar="OCISTOW_BYTES", help="Print sizes in bytes."
)


class _PlatformType(click.ParamType[Platform]):
    name = "OS/ARCH[/VARIANT]"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Platform:
        try:
            return value if isinstance(value, Platform) else Platform.parse(str(value))
        except InvalidContent as error:
            self.fail(str(error), param, ctx)


platform_option = click.option(
    "--platform", type=_PlatformType(), help="Take this one of several images."
)


def name_argument(
    name: str = "name", *, many: bool = False, required: bool = True
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Return an argument that is the name of an image in the store; shells complete it."""
    return click.argument(
        name,
        nargs=-1 if many else 1,
        required=required,
        metavar="NAME..." if many and required else "[NAME]..." if many else "NAME",
        shell_complete=complete_name,
    )


@dataclass(frozen=True, slots=True)
class Transfer:
    """How `add` and `publish` copy, and what they write about it.

    Attributes:
        platform: the one image to take of an index; None takes the whole index.
        referrers: whether what refers to the image goes along.
    """

    platform: Platform | None
    access: Access
    jobs: int
    progress: str
    records: Records
    referrers: bool


def transfer_options(command: Callable[..., _R]) -> Callable[..., _R]:
    """Call a command with settings and a `Transfer`, made of the options that this adds."""

    @pass_settings
    @access_options
    @wraps(command)
    def decorated(
        settings: Settings,
        /,
        *,
        access: Access,
        platform: Platform | None,
        whole: bool,
        jobs: int | None,
        progress: str | None,
        digest_file: Path | None,
        image_refs: Path | None,
        report: Path | None,
        referrers: bool,
        **others: object,
    ) -> _R:
        if whole and platform is not None:
            raise click.UsageError("--all and --platform exclude each other")
        records = Records(digest_file, image_refs, report)
        how = Transfer(
            platform,
            access,
            jobs or settings.jobs,
            progress or settings.progress,
            records,
            referrers,
        )
        return command(settings, how, **others)

    for option in reversed(_TRANSFER_OPTIONS):
        decorated = option(decorated)
    return decorated


_TRANSFER_OPTIONS = (
    platform_option,
    click.option(
        "--all",
        "whole",
        is_flag=True,
        envvar="OCISTOW_ALL",
        help="Take all of several images, as is done without --platform.",
    ),
    click.option(
        "--referrers",
        is_flag=True,
        help="Take what refers to the image along, such as signatures; registries only.",
    ),
    click.option(
        "--jobs",
        type=click.IntRange(1, MAX_JOBS),
        metavar="N",
        help=f"Copy this many blobs at once.  [default: {JOBS}]",
    ),
    click.option(
        "--progress", type=click.Choice(PROGRESS), help="How to show it.  [default: auto]"
    ),
    click.option(
        "--digest-file", type=_FILE, metavar="FILE", help="Write the digest of the image here."
    ),
    click.option(
        "--image-refs",
        type=_FILE,
        metavar="FILE",
        help="Write a line NAME@DIGEST for each place here.",
    ),
    click.option(
        "--report",
        type=_FILE,
        metavar="FILE",
        help="Write here, in JSON, what was done to each blob.",
    ),
)


def complete_name(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Return names of images that a shell may put in place of the beginning of one."""
    from ..store.store import Store
    from .completion import completions

    flags = context.find_root().params
    try:
        settings = of_process(Flags(config=flags.get("config"), store=flags.get("store")))
        with Store.open(settings.store) as store:
            return completions(store.layouts, incomplete)
    except (OcistowError, OSError):
        return []  # a shell that completes must stay quiet
