"""Logging to stderr, set up once for the process."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from ..oci.wording import printable

_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)


class TextFormatter(logging.Formatter):
    """One line a record, whatever names are in it, then a bug's traceback and a server's state.

    Attributes:
        tells_time: lines begin with it.
    """

    tells_time = False

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without its end."""
        time = f"{_time(record)} " if self.tells_time else ""
        lines = [printable(f"{time}{record.levelname} {record.name}: {record.getMessage()}")]
        if record.exc_info:
            lines.append(self.formatException(record.exc_info))
        lines += map(printable, _state(record))
        return "\n".join(lines)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, a bug's traceback, a server's state."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without its end."""
        line = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        if state := _state(record):
            line["state"] = "\n".join(state)
        return json.dumps(line)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _state(record: logging.LogRecord) -> list[str]:
    """Return the lines that a server logs as `state` beside its message."""
    state: object = getattr(record, "state", "")
    return state.splitlines() if isinstance(state, str) else []


def tell_time() -> None:
    """Begin each line with the time from now on: nobody may look before days have passed."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, TextFormatter):
            handler.formatter.tells_time = True


def configure(verbosity: int, log_format: str) -> None:
    """Log warnings, with a verbosity of 1 also what was done, with 2 every request."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    level = _LEVELS[min(verbosity, len(_LEVELS) - 1)]
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # urllib3 logs whole URLs, and those of uploads can carry tokens
    logging.getLogger("urllib3").setLevel(max(level, logging.INFO))
