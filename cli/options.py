"""Options that several commands have, and what they mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec, TypeVar

import click

from ..oci.errors import InvalidContent, OcistowError
from ..oci.platform import Platform
from ..publish.access import JOBS, Access
from .config import MAX_JOBS, PROGRESS, Flags, Settings, of_process
from .output import shown

_P = ParamSpec("_P")
_R = TypeVar("_R")

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
        shell_complete=_complete,
    )


@dataclass(frozen=True, slots=True)
class Transfer:
    """How `add` and `publish` copy."""

    platform: Platform | None
    access: Access
    jobs: int
    progress: str


def transfer_options(command: Callable[..., _R]) -> Callable[..., _R]:
    """Call a command with settings and a `Transfer`, made of the options that this adds."""

    @pass_settings
    @wraps(command)
    def decorated(
        settings: Settings,
        /,
        *,
        platform: Platform | None,
        creds: str | None,
        tls_verify: bool,
        plain_http: bool,
        jobs: int | None,
        progress: str | None,
        **others: object,
    ) -> _R:
        access = _access(creds, tls_verify=tls_verify, plain_http=plain_http)
        how = Transfer(platform, access, jobs or settings.jobs, progress or settings.progress)
        return command(settings, how, **others)

    for option in (
        click.option(
            "--progress", type=click.Choice(PROGRESS), help="How to show it.  [default: auto]"
        ),
        click.option(
            "--jobs",
            type=click.IntRange(1, MAX_JOBS),
            metavar="N",
            help=f"Copy this many blobs at once.  [default: {JOBS}]",
        ),
        click.option("--plain-http", is_flag=True, help="Speak HTTP with the registry."),
        click.option(
            "--tls-verify/--no-tls-verify", default=True, help="Check the registry's certificate."
        ),
        click.option(
            "--creds",
            metavar="USER:PASS",
            help="Credentials for the registry; OCISTOW_CREDS keeps them out of `ps`.",
        ),
        platform_option,
    ):
        decorated = option(decorated)
    return decorated


def _access(creds: str | None, *, tls_verify: bool, plain_http: bool) -> Access:
    """Return what the options mean."""
    user, colon, password = (creds or "").partition(":")
    if creds is not None and (not colon or not user):
        raise click.UsageError("--creds: expected USER:PASS")
    return Access(
        credentials=(user, password) if colon else None,
        plain_http=True if plain_http else None,
        tls_verify=tls_verify,
    )


def _complete(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    from ..store.store import Store

    flags = context.find_root().params
    try:
        settings = of_process(Flags(config=flags.get("config"), store=flags.get("store")))
        with Store.open(settings.store) as store:
            return [n for n in map(shown, store.names()) if n.startswith(incomplete)]
    except (OcistowError, OSError):
        return []  # a shell that completes must stay quiet
