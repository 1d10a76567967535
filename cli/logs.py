"""Logging to stderr, set up once for the process."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from ..oci.wording import printable

_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)


class TextFormatter(logging.Formatter):
    """One line a record, whatever names are in it, then a bug's traceback and a server's state."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without its end."""
        lines = [printable(f"{record.levelname} {record.name}: {record.getMessage()}")]
        if record.exc_info:
            lines.append(self.formatException(record.exc_info))
        lines += map(printable, _state(record))
        return "\n".join(lines)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, a bug's traceback, a server's state."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without its end."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        if state := _state(record):
            line["state"] = "\n".join(state)
        return json.dumps(line)


def _state(record: logging.LogRecord) -> list[str]:
    """Return the lines that a server logs as `state` beside its message."""
    state: object = getattr(record, "state", "")
    return state.splitlines() if isinstance(state, str) else []


def configure(verbosity: int, log_format: str) -> None:
    """Log warnings, with a verbosity of 1 also what was done, with 2 every request."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    level = _LEVELS[min(verbosity, len(_LEVELS) - 1)]
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # urllib3 logs whole URLs, and those of uploads can carry tokens
    logging.getLogger("urllib3").setLevel(max(level, logging.INFO))
