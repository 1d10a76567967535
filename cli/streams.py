"""stdout and stderr, which whoever started us may have closed."""

from __future__ import annotations

import os
import select
import sys


def replace_closed_streams() -> None:
    """Let output go nowhere where the caller closed it, instead of into the next file opened."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # for the process' life


def nobody_reads() -> bool:
    """Tell whether the reader of stdout is gone; then keep the interpreter from complaining.

    A broken pipe can also be a connection, and that must be said.
    """
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    _discard()
    return True


def forget_what_is_left() -> None:
    """Drop what stdout refused, which was said: the interpreter would say it again, status 120."""
    try:
        sys.stdout.flush()
    except OSError:
        _discard()


def _discard() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
