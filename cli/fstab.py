"""`mount.ocistow`: what mount(8) runs for `mount -t ocistow` and for lines of /etc/fstab.

It is `ocistow mount --background`, whose options are the mount options of the same name.
Source: mount(8), "External helpers"; its exit statuses.
"""

from __future__ import annotations

import getopt
import os
from collections.abc import Iterator, Sequence

import click

from . import exits
from .mount import mount

PROGRAMS = ("mount.ocistow", "mount.fuse.ocistow")

INCORRECT = 1  # the exit statuses of mount(8)
BUG = 4
INTERRUPTED = 8
FAILED = 32

_USAGE = "usage: {} STORE MOUNTPOINT [-fnsv] [-o OPTION,...]"
_OTHER_NAMES = {"ro": "read-only", "noexec": "no-exec"}
_IGNORED = frozenset(
    (
        *("defaults", "rw", "exec", "async"),  # what is so without a word
        *("auto", "noauto", "nofail", "_netdev"),  # for who reads fstab
        *("user", "nouser", "users", "owner", "group"),
        *("dev", "nodev", "suid", "nosuid"),  # there are no devices, and no set-user-ID programs
        *("atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime"),  # the disk's
        *("strictatime", "nostrictatime", "lazytime", "nolazytime"),
    )
)
_FOR_OTHERS = ("x-", "X-", "comment=", "user=")
_NOT_HERE = frozenset(
    {"background", "help", "json", "private", "no-private", "prometheus", "status"}
)


def run(program: str, words: Sequence[str]) -> int:
    """Mount what mount(8) asks for, and return an exit status as it understands it."""
    from . import commands

    try:
        arguments = arguments_of(program, words)
    except click.ClickException as error:
        click.echo(f"{program}: {error.format_message()}", err=True)
        return INCORRECT
    return _status(commands.run(arguments) if arguments else 0)


def arguments_of(program: str, words: Sequence[str]) -> list[str]:
    """Return the arguments of `ocistow` that do the same; none to do nothing.

    Raises:
        ClickException: there is an option that nobody knows; or the like.
    """
    try:
        given, places = getopt.gnu_getopt(list(words), "fnsvo:t:")
    except getopt.GetoptError as error:
        raise click.ClickException(f"{error.msg}; {_USAGE.format(program)}") from None
    if len(places) != 2:
        raise click.ClickException(_USAGE.format(program))
    flags = {flag for flag, _ in given}
    options = [word for flag, value in given if flag == "-o" for word in value.split(",") if word]
    translated = [*_translated(options, sloppy="-s" in flags)]
    if "-f" in flags:
        return []
    store, mountpoint = places
    return [
        *(["--verbose"] if "-v" in flags else []),
        f"--store={os.path.abspath(store)}",
        "mount",
        "--background",
        *translated,
        "--",
        os.path.abspath(mountpoint),
    ]


def _translated(options: Sequence[str], *, sloppy: bool) -> Iterator[str]:
    known = {
        name.removeprefix("--"): parameter
        for parameter in mount.params
        for name in (*parameter.opts, *parameter.secondary_opts)
        if isinstance(parameter, click.Option) and name.startswith("--")
    }
    for option in options:
        if option in _IGNORED or option.startswith(_FOR_OTHERS):
            continue
        text, equals, value = option.partition("=")
        name = _OTHER_NAMES.get(text, text.replace("_", "-"))
        parameter = known.get(name)
        if parameter is None or name in _NOT_HERE:
            if not sloppy:
                raise click.ClickException(f"unknown mount option {text!r}")
        elif parameter.is_flag == bool(equals):
            wanted = "takes no value" if equals else "needs a value"
            raise click.ClickException(f"mount option {text!r} {wanted}")
        else:
            yield f"--{name}{equals}{value}"


def _status(status: int) -> int:
    known = {0: 0, exits.USAGE: INCORRECT, exits.BUG: BUG, exits.INTERRUPTED: INTERRUPTED}
    return known.get(status, FAILED)
