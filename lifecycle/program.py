"""The programs of the lifecycle: from a command line to an exit status.

Source: Go's lifecycle, cmd/lifecycle/main.go and cmd/lifecycle/cli/command.go.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping, Sequence

from ..oci.errors import InvalidContent, OcistowError, PhaseFailed
from ..oci.wording import message_of
from .console import Console, Level
from .golang.flags import parse, usage
from .invocation import privileges
from .invocation.arguments import PLATFORM_API, Phase, flags_of
from .invocation.resolution import inputs_of
from .invocation.validation import validated
from .opening import opened, readable
from .platform_api import PLATFORM_APIS, Code, Version

PROGRAMS = {phase.program: phase for phase in Phase}
VERBS = {phase.verb: phase for phase in Phase}
MULTICALL = "lifecycle"

# what a phase ends with where the specification has nothing more exact
STATUSES = {
    Phase.ANALYZE: Code.ANALYZE,
    Phase.DETECT: Code.DETECT,
    Phase.RESTORE: Code.RESTORE,
    Phase.BUILD: Code.BUILD,
    Phase.EXPORT: Code.EXPORT,
    Phase.CREATE: Code.FAILED,
    Phase.REBASE: Code.REBASE,
    Phase.PUBLISH: Code.PUBLISH,
}


def run(program: str, arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the phase of a program, such as `analyzer`, or that which `lifecycle` is told of.

    Returns the status to exit with. Everything is said on stdout and stderr; a bug keeps its
    traceback.
    """
    console = Console(sys.stdout.buffer, sys.stderr.buffer)
    console.color = not environ.get("NO_COLOR")
    try:
        if program in PROGRAMS:
            return _run(PROGRAMS[program], program, arguments, environ, console)
        if not arguments:
            raise PhaseFailed(Code.INVALID_ARGS, "failed to parse arguments")
        if arguments[0] == "-version":
            return _say_version(console)
        _platform_api(environ)
        name = os.path.basename(arguments[0])
        if name not in VERBS:
            message = f"failed to recognize phase: {name} \nValid phases: {', '.join(VERBS)}"
            raise PhaseFailed(Code.INVALID_ARGS, message)
        return _run(VERBS[name], name, arguments[1:], environ, console)
    except PhaseFailed as error:
        console.error(error.message)
        return error.code
    except (OcistowError, OSError) as error:
        console.error(message_of(error))
        return Code.FAILED
    except Exception as error:
        console.write(traceback.format_exc().encode(errors="backslashreplace"), error=True)
        console.error(f"{program} has a bug: {type(error).__name__}")
        return Code.FAILED


def _run(
    phase: Phase, name: str, arguments: Sequence[str], environ: Mapping[str, str], console: Console
) -> int:
    api = _platform_api(environ)
    flags = flags_of(phase, api, environ)
    try:
        parsed = parse(flags, arguments)
    except PhaseFailed as error:
        console.write(f"{error}\n{usage(flags)}".encode(errors="surrogateescape"), error=True)
        return error.code
    if parsed.wants_help:
        console.write(usage(flags).encode(errors="surrogateescape"), error=True)
        return 0
    if parsed.values["version"]:
        return _say_version(console)
    console.color = console.color and not parsed.values["no-color"]
    console.level = Level.parse(str(parsed.values["log-level"]))
    for argument in parsed.positional:
        if argument.startswith("-"):
            console.warn(
                f"Warning: unconsumed flag-like positional arg: \n\t{argument}\n\t "
                "This will not be interpreted as a flag.\n\t "
                "Did you mean to put this before the first positional argument?"
            )
    console.debug(f"Starting {name}...")
    console.debug("Parsing inputs...")
    inputs, deprecated_run_image = inputs_of(phase, api, parsed, environ)
    may_be_read = readable(inputs)
    inputs = validated(phase, inputs, deprecated_run_image, console, may_be_read)
    console.debug("Ensuring privileges...")
    privileges.refuse_root(phase)
    with opened(phase, inputs, console) as (inputs, execute):
        inputs = privileges.drop(phase, inputs)
        console.debug("Executing command...")
        try:
            execute(inputs)
        except (OcistowError, OSError) as error:
            if isinstance(error, PhaseFailed):
                raise
            message = f"failed to {phase.verb}: {message_of(error)}"
            raise PhaseFailed(STATUSES[phase], message) from error
    return 0


def _platform_api(environ: Mapping[str, str]) -> Version:
    text = environ.get(PLATFORM_API, "")
    if not text.strip():
        wanted = f"please set '{PLATFORM_API}' to specify the desired platform API version"
        raise PhaseFailed(Code.PLATFORM_API, f"failed to get platform API version; {wanted}")
    try:
        version = Version.parse(text)
    except InvalidContent as error:
        raise PhaseFailed(Code.PLATFORM_API, f"failed to parse platform API '{text}'") from error
    if version not in PLATFORM_APIS:
        refused = f"platform API version '{text}' is incompatible with the lifecycle"
        raise PhaseFailed(Code.PLATFORM_API, f"failed to set platform API: {refused}")
    return version


def _say_version(console: Console) -> int:
    from ..oci.version import version

    console.info(version())
    return 0
