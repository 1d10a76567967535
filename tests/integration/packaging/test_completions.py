"""What is installed for shells completes in them, at a terminal."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import ocistow
from ocistow.store.store import Store
from ocistow.testing.minimal import minimal_image
from ocistow.testing.terminal import Screen, Terminal

from ..conftest import program

SHARE = Path(__file__).parents[3] / "packaging" / "share"
SOURCES = Path(ocistow.__file__).parents[1]
AS = 64 * "a"
LAYOUTS = ("example.com/app/1", "example.com/app/22", f"example.com/app/sha256/{AS}")


@pytest.fixture
def environment(tmp_path: Path) -> Mapping[str, str]:
    """A store with images, and an `ocistow` that completes words, or else prints them."""
    with Store.create(tmp_path / "store") as store:
        for name in LAYOUTS:
            minimal_image("one").write_to(store.layouts / name)
    command = tmp_path / "bin" / "ocistow"
    command.parent.mkdir()
    command.write_text(
        f"""#!/bin/sh
[ -z "$_OCISTOW_COMPLETE" ] || exec "{sys.executable}" -m ocistow.cli
printf "[%s]" "$@" end
echo
"""
    )
    command.chmod(0o755)
    return {
        "HOME": str(tmp_path),
        "LC_ALL": "C.UTF-8",
        "OCISTOW_CONFIG": os.devnull,
        "OCISTOW_STORE": str(tmp_path / "store"),
        "PATH": f"{command.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(SOURCES),
        "TERM": "dumb",
    }


@pytest.mark.slow
def test_bash_completes_commands_options_and_names(environment: Mapping[str, str]) -> None:
    shell = [program("bash"), "--noprofile", "--norc"]
    with Terminal(shell, {**environment, "PS1": "> "}) as terminal:
        terminal.type(f"source {SHARE}/bash-completion/completions/ocistow\n")
        for typed, words in [
            ("inspe", "[inspect]"),
            ("verify --jo", "[verify][--jobs]"),
            ("mount --engine=ker", "[mount][--engine=kernel]"),
            ("inspect example.com/a", "[inspect][example.com/app]"),
            ("inspect example.com/app:2", "[inspect][example.com/app:22]"),
            ("rm example.com/app:1 example.com/app@", f"app:1][example.com/app@sha256:{AS}]"),
            ("inspect example.com/app@sha256:a", f"[inspect][example.com/app@sha256:{AS}]"),
            ("--store=nowhere inspect example", "[--store=nowhere][inspect][example]"),
        ]:
            terminal.type(f"ocistow {typed}\t\n")
            terminal.wait_until(_shows(f"{words}[end]"))


def _shows(words: str) -> Callable[[Screen], bool]:
    return lambda screen: any(words in line for line in screen.lines)
