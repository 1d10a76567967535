"""The commands: parse, call one function of the library, report.

Commands are imported when they are run: `ocistow --help` and shell completion
need neither requests nor trio.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import click

from ..oci.errors import OcistowError
from ..oci.wording import message_of
from . import exits, logs
from .config import LOG_FORMATS, Flags, of_process
from .signals import Terminated, has_last_word
from .streams import forget_what_is_left, nobody_reads

PREFIX = "OCISTOW"

# module below cli/ -> name of the command in it -> its first line of help, held equal by a test
COMMANDS: dict[str, dict[str, str]] = {
    "add": {"add": "Take an image into the store."},
    "publish": {"publish": "Send an image out of the store."},
    "link": {"link": "Make images plain layouts elsewhere."},
    "mount": {"mount": "Show the store's layouts as a directory."},
    "umount": {"umount": "Unmount what `mount` mounted."},
    "ls": {"ls": "List the images in the store."},
    "inspect": {"inspect": "Show what an image consists of."},
    "tag": {"tag": "Give an image another name."},
    "annotate": {"annotate": "Set annotations of an image's manifest."},
    "rm": {"rm": "Remove images from the store."},
    "remote": {"remote": "Name registries that have what the store lacks."},
    "dedupe": {"dedupe": "Let layouts elsewhere share the store's blobs."},
    "verify": {"verify": "Read blobs again, and check images."},
    "gc": {"gc": "Remove blobs that nobody needs."},
    "du": {"du": "Tell what images cost on disk."},
    "reindex": {"reindex": "Put the index database in order."},
    "doctor": {"doctor": "Look whether this machine has what ocistow needs."},
    "bench": {"bench": "Measure ways of a build into a daemon."},
    "phase": {"phase": "Run a phase of a Cloud Native Buildpacks build."},
}
_MODULES = {name: module for module, names in COMMANDS.items() for name in names}
_HELP = {name: text for names in COMMANDS.values() for name, text in names.items()}


class LazyGroup(click.Group):
    """A group whose commands are imported when somebody asks for one of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(_HELP)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None for a name that no command has."""
        if cmd_name not in _MODULES:
            return None
        command = getattr(importlib.import_module(f".{_MODULES[cmd_name]}", __package__), cmd_name)
        assert isinstance(command, click.Command)
        # --jobs is OCISTOW_JOBS in every command, not OCISTOW_ADD_JOBS
        command.context_settings.setdefault("auto_envvar_prefix", PREFIX)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; a broken pipe is not left to click, which exits with 1 for any."""
        try:
            result: object = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError as error:
            raise _BrokenPipe(error) from error
        return result

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_HELP.items()))


class _BrokenPipe(Exception):
    """Carries a BrokenPipeError past click."""

    def __init__(self, error: BrokenPipeError) -> None:
        super().__init__(error)
        self.error = error


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from ..oci.version import version

        click.echo(f"ocistow {version()}")
        context.exit()


@click.group(
    cls=LazyGroup,
    context_settings={
        "auto_envvar_prefix": PREFIX,
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
    },
)
@click.option("-v", "--verbose", count=True, help="Say more; twice for every request.")
@click.option(
    "--store",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The store.  [default: /var/lib/ocistow for root, else ~/.local/share/ocistow]",
)
@click.option(
    "--log-format", type=click.Choice(LOG_FORMATS), help="How messages look.  [default: text]"
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Settings.  [default: /etc/ocistow/config.toml for root, else "
    "~/.config/ocistow/config.toml]",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    allow_from_autoenv=False,
    callback=_print_version,
    help="Show the version and exit.",
)
@click.pass_context
def commands(
    context: click.Context,
    verbose: int,
    store: Path | None,
    log_format: str | None,
    config: Path | None,
) -> None:
    """One deduplicating store under many OCI image layouts.

    Every option is also an environment variable: --store is OCISTOW_STORE.
    """
    if context.invoked_subcommand == "phase":
        return  # whose user may be allowed to read neither the file nor the directory it is in
    context.obj = of_process(Flags(config=config, store=store, log_format=log_format))
    logs.configure(verbose, context.obj.log_format)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments, or `sys.argv`, name; return the status to exit with.

    Known errors become one line; a bug keeps its traceback.
    """
    if f"_{PREFIX}_COMPLETE" in os.environ:
        from .shells import register

        register()
    try:
        result: object = commands.main(arguments, prog_name="ocistow", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        _say(_usage(error))
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        if has_last_word():
            _say("interrupted")
        return exits.INTERRUPTED
    except Terminated:
        if has_last_word():
            _say("terminated")
        return exits.TERMINATED
    except _BrokenPipe as broken:
        if nobody_reads():
            return exits.BROKEN_PIPE
        _say(message_of(broken.error))
        return exits.status_of(broken.error)
    except (OcistowError, OSError) as error:
        _say(message_of(error))
        forget_what_is_left()
        return exits.status_of(error)
    except Exception:
        traceback.print_exc()
        return exits.BUG
    return result if isinstance(result, int) else 0


def _say(message: str) -> None:
    click.echo(f"ocistow: {message}", err=True)


def _usage(error: click.ClickException) -> str:
    """Return click's message in one line, like ours."""
    message = " ".join(error.format_message().split()).rstrip(".")
    message = message[:1].lower() + message[1:]
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"{message} (see {context.command_path} -h)" if context else message
