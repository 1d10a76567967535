"""Settings: flags, then `OCISTOW_*`, then one TOML file, then defaults, merged once.

click reads the flags and their environment variables; the file is read here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..oci.document import parse_table
from ..oci.errors import InvalidContent
from ..oci.wording import quoted
from ..publish.access import JOBS

LOG_FORMATS = ("text", "json")
PROGRESS = ("auto", "bar", "json", "none")
MAX_JOBS = 64

_KEYS = ("store", "jobs", "progress", "log-format", "checksums")
_MAX_FILE = 64 * 1024  # bytes
_SHOWN = 5  # unknown keys in a message


@dataclass(frozen=True, slots=True)
class Settings:
    """What every command gets to know.

    Attributes:
        store: the directory of the store, absolute; it need not exist.
        jobs: how many blobs are copied at once.
        progress: one of `PROGRESS`.
        log_format: one of `LOG_FORMATS`.
        checksums: whether the BLAKE3 of each blob that comes in is recorded.
    """

    store: Path
    jobs: int = JOBS
    progress: str = "auto"
    log_format: str = "text"
    checksums: bool = False


@dataclass(frozen=True, slots=True)
class Flags:
    """The flags of every command; None is a flag that was not given."""

    config: Path | None = None
    store: Path | None = None
    log_format: str | None = None


def of_process(flags: Flags) -> Settings:
    """Merge flags with what this process' user and environment say."""
    return settings(flags, os.environ, root=os.geteuid() == 0)


def settings(flags: Flags, environment: Mapping[str, str], *, root: bool) -> Settings:
    """Merge flags with the file they or `environment` lead to.

    `root` tells whether root asks: then the file is the one below /etc, and the
    default store the one below /var/lib.

    Raises:
        InvalidContent: the file is not TOML, or a key of it is unknown or malformed; or the
            store lies below the home of somebody who has none.
        OSError: the file that `flags` name cannot be read.
    """
    file = flags.config or _config_file(environment, root=root)
    document: Mapping[str, object]
    try:
        document = _read(file)
    except (FileNotFoundError, NotADirectoryError):
        if flags.config:
            raise
        document = dict[str, object]()
    return Settings(
        store=_expanded(
            flags.store or _store(document, file) or default_store(environment, root=root)
        ).absolute(),
        jobs=_jobs(document, file),
        progress=_choice(document, "progress", PROGRESS, file),
        log_format=flags.log_format or _choice(document, "log-format", LOG_FORMATS, file),
        checksums=_flag(document, "checksums", file),
    )


def default_store(environment: Mapping[str, str], *, root: bool) -> Path:
    """Return the store of somebody who names none."""
    if root:
        return Path("/var/lib/ocistow")
    return _home(environment, "XDG_DATA_HOME", ".local/share") / "ocistow"


def _config_file(environment: Mapping[str, str], *, root: bool) -> Path:
    directory = Path("/etc") if root else _home(environment, "XDG_CONFIG_HOME", ".config")
    return directory / "ocistow" / "config.toml"


def _home(environment: Mapping[str, str], variable: str, default: str) -> Path:
    """Return a base directory; as its specification says, a relative one counts as not set."""
    if os.path.isabs(value := environment.get(variable, "")):
        return Path(value)
    return Path(environment.get("HOME") or os.path.expanduser("~"), default)


def _read(file: Path) -> Mapping[str, object]:
    with file.open("rb") as stream:
        raw = stream.read(_MAX_FILE + 1)
    document = parse_table(raw, str(file), _MAX_FILE)
    if unknown := sorted(document.keys() - set(_KEYS)):
        words = ", ".join(map(quoted, unknown[:_SHOWN]))
        raise InvalidContent(f"{file}: unknown key {words}, expected {', '.join(_KEYS)}")
    return document


def _store(document: Mapping[str, object], file: Path) -> Path | None:
    value = document.get("store")
    if value is None:
        return None
    if not isinstance(value, str) or not value.startswith(("/", "~")) or "\0" in value:
        raise InvalidContent(f"{file}: store is {quoted(value)}, expected an absolute path")
    return Path(value)


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        user = quoted(path.parts[0][1:]) if path.parts[0] != "~" else "this user"
        raise InvalidContent(f"store is {quoted(str(path))}, but {user} has no home") from error


def _jobs(document: Mapping[str, object], file: Path) -> int:
    value = document.get("jobs", JOBS)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_JOBS:
        raise InvalidContent(
            f"{file}: jobs is {quoted(value)}, expected a number from 1 to {MAX_JOBS}"
        )
    return value


def _choice(document: Mapping[str, object], key: str, choices: tuple[str, ...], file: Path) -> str:
    value = document.get(key, choices[0])
    if not isinstance(value, str) or value not in choices:
        raise InvalidContent(
            f"{file}: {key} is {quoted(value)}, expected one of {', '.join(choices)}"
        )
    return value


def _flag(document: Mapping[str, object], key: str, file: Path) -> bool:
    value = document.get(key, False)
    if not isinstance(value, bool):
        raise InvalidContent(f"{file}: {key} is {quoted(value)}, expected true or false")
    return value
