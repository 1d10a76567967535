"""A mount that is set another time does not notice: it asks no clock that can be set."""

import ast
from pathlib import Path

import ocistow.fusefs.mount

SOURCES = Path(ocistow.fusefs.mount.__file__).parent
STEADY = {"monotonic", "monotonic_ns", "sleep"}  # of the module time


def clocks(source: str) -> set[str]:
    """Return what some code takes from the modules of time, unless it is steady."""
    found = set[str]()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(value=ast.Name(id="time"), attr=name) if name not in STEADY:
                found.add(name)
            case ast.ImportFrom(module="time" | "datetime", names=names):
                found |= {alias.name for alias in names} - STEADY
            case ast.Import(names=names):
                found |= {alias.name for alias in names} & {"datetime"}
            case _:
                pass
    return found


def test_only_steady_clocks_are_asked() -> None:
    modules = [*SOURCES.rglob("*.py")]
    assert len(modules) > 20
    assert {path.name: found for path in modules if (found := clocks(path.read_text()))} == {}


def test_others_would_be_found() -> None:
    assert clocks("import time; time.time()") == {"time"}
    assert clocks("from datetime import datetime") == {"datetime"}
    assert clocks("import datetime") == {"datetime"}
    assert clocks("import time; time.monotonic()") == set()
