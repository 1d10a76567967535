"""What one look at this machine found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How it stands."""

    OK = "ok"
    WARN = "warn"  # something is missing or slow; the rest works
    FAIL = "fail"  # what the check is about does not work


@dataclass(frozen=True, slots=True)
class Check:
    """A row of the table.

    Attributes:
        name: what was looked at; always the same, for scripts.
        found: what there is, in a few words; without secrets.
        advice: what to do about it; empty where there is nothing to be done.
    """

    name: str
    state: State
    found: str
    advice: str = ""


def ok(name: str, found: str) -> Check:
    """Return a check that found what is needed."""
    return Check(name, State.OK, found)


def warn(name: str, found: str, advice: str) -> Check:
    """Return a check that found something to be improved."""
    return Check(name, State.WARN, found, advice)


def fail(name: str, found: str, advice: str) -> Check:
    """Return a check that found something that does not work."""
    return Check(name, State.FAIL, found, advice)
