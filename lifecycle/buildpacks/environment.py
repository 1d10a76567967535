"""The variables that buildpacks see, and the directories that change them.

Source: buildpacks/spec, buildpack.md, "Environment"; platform.md, "Provided by the Platform" and
"Build Config"; Go's lifecycle, env/env.go and env/build.go.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias

from ...oci.errors import InvalidContent
from ...oci.wording import message_of

Variables: TypeAlias = Mapping[str, str]

PASSED_THROUGH = frozenset(
    {
        "CNB_STACK_ID",
        "HOSTNAME",
        "HOME",
        "HTTPS_PROXY",
        "https_proxy",
        "HTTP_PROXY",
        "http_proxy",
        "NO_PROXY",
        "no_proxy",
    }
)
PATHS = {  # directories of a layer, and the variables that name those of their kind
    "bin": ("PATH",),
    "lib": ("LD_LIBRARY_PATH", "LIBRARY_PATH"),
    "include": ("CPATH",),
    "pkgconfig": ("PKG_CONFIG_PATH",),
}
MAX_VARIABLE = 128 << 10  # bytes; Linux gives no program a variable of this size or above

_PATH_VARIABLES = frozenset(name for names in PATHS.values() for name in names)
_DELIMITER = ".delim"


class Action(StrEnum):
    """What a file does with the variable of its name: its suffix."""

    PREPEND = "prepend"
    APPEND = "append"
    OVERRIDE = "override"
    DEFAULT = "default"
    PREPEND_PATH = ""  # a name that ends with a dot


_ACTIONS = {action.value: action for action in Action}


@dataclass(frozen=True, slots=True)
class Change:
    """One file of an `env` directory.

    Attributes:
        delimiter: between two values; None where there is no file for it.
    """

    name: str
    action: Action
    value: str
    delimiter: str | None = None


def passed_through(environ: Variables) -> dict[str, str]:
    """Return the variables of the phase's own process that buildpacks may see."""
    kept = PASSED_THROUGH | _PATH_VARIABLES
    return {name: value for name, value in environ.items() if name in kept}


def changed(variables: Variables, changes: Iterable[Change]) -> dict[str, str]:
    """Return the variables after every change, one after the other.

    An empty value counts as none: nothing is put between it and another one.
    """
    result = dict(variables)
    for change in changes:
        old = result.get(change.name, "")
        between = change.delimiter or ""
        match change.action:
            case Action.OVERRIDE:
                result[change.name] = change.value
            case Action.DEFAULT:
                result[change.name] = old or change.value
            case Action.PREPEND:
                result[change.name] = _joined(change.value, between, old)
            case Action.PREPEND_PATH:
                between = os.pathsep if change.delimiter is None else change.delimiter
                result[change.name] = _joined(change.value, between, old)
            case Action.APPEND:
                result[change.name] = _appended(old, between, change.value)
    return result


def with_platform(variables: Variables, given: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the variables after those that the user gave; search paths go before the old ones."""
    result = dict(variables)
    for name, value in given:
        before = name in _PATH_VARIABLES
        result[name] = _joined(value, os.pathsep, result.get(name, "")) if before else value
    return result


def with_layer(variables: Variables, layer: Path) -> dict[str, str]:
    """Return the variables after a layer for builds: its search paths, `env` and `env.build`.

    Raises:
        InvalidContent, OSError: a file of it cannot be a variable, or cannot be read.
    """
    result = dict(variables)
    absolute = layer.absolute()
    for directory, names in PATHS.items():
        if (absolute / directory).exists():
            for name in names:
                result[name] = _joined(str(absolute / directory), os.pathsep, result.get(name, ""))
    for directory in ("env", "env.build"):
        result = changed(result, read_changes(layer / directory, Action.OVERRIDE))
    return result


def of_buildpack(
    variables: Variables, build_config_dir: Path | None, platform_dir: Path | None
) -> dict[str, str]:
    """Return what a buildpack sees; one that clears its environment is given no platform.

    Raises:
        InvalidContent, OSError: a file of them cannot be a variable, or cannot be read.
    """
    result = dict(variables)
    if platform_dir is not None:
        result = with_platform(result, _files(platform_dir / "env"))
    if build_config_dir is not None:
        result = changed(result, read_changes(build_config_dir / "env", Action.DEFAULT))
    return result


def read_changes(directory: Path, default: Action) -> Iterator[Change]:
    """Yield what the files of an `env` directory do, sorted by name; without one, nothing.

    Files with an unknown suffix do nothing. `default` is what one without a suffix does.

    Raises:
        InvalidContent: one cannot be a variable, or cannot be read.
    """
    try:
        files = dict(_files(directory))
    except (InvalidContent, OSError) as error:
        why = message_of(error)
        raise InvalidContent(f"apply env files from dir '{directory}': {why}") from error
    for file, value in files.items():
        name, dot, suffix = file.partition(".")
        if not dot:
            yield Change(name, default, value, files.get(name + _DELIMITER))
        elif (action := _ACTIONS.get(suffix)) is not None:
            yield Change(name, action, value, files.get(name + _DELIMITER))


def _joined(first: str, between: str, second: str) -> str:
    return f"{first}{between}{second}" if second else first


def _appended(first: str, between: str, second: str) -> str:
    return f"{first}{between}{second}" if first else second


def _files(directory: Path) -> Iterator[tuple[str, str]]:
    try:
        names = sorted(os.listdir(directory), key=os.fsencode)
    except FileNotFoundError:
        return
    for name in names:
        path = directory / name
        if not path.is_dir():  # Kubernetes mounts have links to directories between their files
            yield name, _value(path)


def _value(path: Path) -> str:
    # an opened FIFO would wait for a writer
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise InvalidContent(f"{path} is not a regular file")
        value = file.read(MAX_VARIABLE)
    if len(value) >= MAX_VARIABLE:
        raise InvalidContent(f"{path} is too large for a variable")
    if b"\0" in value:
        raise InvalidContent(f"{path} contains NUL, which no variable can")
    return os.fsdecode(value)
