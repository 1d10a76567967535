"""`ocistow phase`: the phases of a Cloud Native Buildpacks build, and their programs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import cast

import click

import ocistow

from ..lifecycle.program import MULTICALL, PROGRAMS, VERBS
from ..oci.errors import InvalidContent
from ..store.output import replacing
from ..store.reading import open_directory
from .main import run_phase
from .output import line

_SCRIPT = """\
#!{python} -I
import sys
if {packages!r} not in sys.path:
    sys.path.insert(0, {packages!r})
from ocistow.cli.main import main
main()
"""
_SHEBANG = 120  # characters; older kernels cut the line at 127


class _Phase(click.Command):
    """A command whose arguments are the phase's alone."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take all of them as they are: Go's flags are none of click's."""
        ctx.params["arguments"] = tuple(args)
        return []


class _Phases(click.Group):
    """A command for every phase, which may also be called by its program."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all, in the order of a build."""
        return list(self.commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; None for a name that none has."""
        name = PROGRAMS[cmd_name].verb if cmd_name in PROGRAMS else cmd_name
        return super().get_command(ctx, name)


@click.group(cls=_Phases)
def phase() -> None:
    """Run a phase of a Cloud Native Buildpacks build.

    What follows its name are the flags of the phase, as Go writes them. With -h
    it lists those that it has for the CNB_PLATFORM_API of the environment.
    """


def _command(verb: str, program: str) -> click.Command:
    @click.pass_context
    def run(context: click.Context, arguments: tuple[str, ...]) -> int:
        store = cast("Path | None", context.find_root().params["store"])  # --store of `ocistow`
        more = {"OCISTOW_STORE": str(store)} if store else {}
        return run_phase(program, arguments, {**os.environ, **more})

    return _Phase(
        verb,
        callback=run,
        help=f"{_HELP[verb]}\n\nThis is the program `{program}`.",
        options_metavar="[FLAGS]",
        params=[click.Argument(["arguments"], nargs=-1, metavar=_METAVARS.get(verb, ""))],
        add_help_option=False,
    )


_HELP = {
    "analyze": "Look up the image of the last build, and the run image.",
    "detect": "Find the buildpacks that take part.",
    "restore": "Bring back the layers of the last build.",
    "build": "Let the buildpacks build.",
    "export": "Make an image of the layers and the app, and save it.",
    "create": "Analyze, detect, restore, build and export.",
    "rebase": "Put an image on another run image.",
    "publish": "Push an image from an OCI layout to a registry, or into a daemon.",
}
_METAVARS = {
    "analyze": "IMAGE",
    "export": "IMAGE [TAG]...",
    "create": "IMAGE",
    "rebase": "IMAGE [TAG]...",
    "publish": "IMAGE [TAG]...",
}
for _verb, _of in VERBS.items():
    phase.add_command(_command(_verb, _of.program))


@phase.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--force", is_flag=True, help="Replace files of other programs.")
def install(directory: Path, force: bool) -> None:
    """Put the programs of the phases into a directory.

    They stand for those that platforms run as /cnb/lifecycle/analyzer and so on.
    A launcher that is there stays.
    """
    python, packages = sys.executable, str(Path(ocistow.__file__).parents[1])
    if len(python) > _SHEBANG or " " in python:
        raise InvalidContent(f"{python} cannot stand in the first line of a script")
    script = _SCRIPT.format(python=python, packages=packages)
    directory.mkdir(parents=True, exist_ok=True)
    main = directory / MULTICALL
    links = [directory / program for program in PROGRAMS]
    taken = [link for link in links if _exists(link) and not _leads_to(link, MULTICALL)]
    if _exists(main) and (main.is_symlink() or main.read_bytes() != script.encode()):
        taken.append(main)
    if taken and not force:
        raise FileExistsError(0, "is there already; --force replaces it", str(taken[0]))
    descriptor = open_directory(directory)
    try:
        with replacing(descriptor, main.name) as file:
            os.write(file, script.encode())
            os.fchmod(file, 0o755)
    finally:
        os.close(descriptor)
    for link in links:
        temporary = directory / f".{link.name}.{os.getpid()}"
        temporary.symlink_to(MULTICALL)
        temporary.replace(link)
    line(f"put {len(links)} programs into {directory}")


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _leads_to(link: Path, name: str) -> bool:
    return link.is_symlink() and os.readlink(link) == name
