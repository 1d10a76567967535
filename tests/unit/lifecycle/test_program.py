"""How the programs of the phases begin and end."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import ocistow
from ocistow.cli.main import PROGRAMS as NAMES
from ocistow.lifecycle import program
from ocistow.lifecycle.invocation.arguments import Phase
from ocistow.lifecycle.program import MULTICALL, PROGRAMS, run

from .invocations import INVOCATIONS, PRIVILEGED, Invocation

SOURCES = Path(ocistow.__file__).parents[1]
_COLOUR = re.compile(r"\x1b\[[\d;]*m")


def run_alone(
    arguments: list[str], environ: Mapping[str, str], directory: Path
) -> subprocess.CompletedProcess[str]:
    """Run a program as a process of its own; the first argument is its name."""
    code = "import sys; sys.argv = sys.argv[1:]; from ocistow.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={"PYTHONPATH": str(SOURCES), "PYTHONWARNINGS": "error", **environ},
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def said(text: str) -> list[str]:
    return _COLOUR.sub("", text).splitlines()


def write(invocation: Invocation, directory: Path) -> None:
    for name, text in invocation.files.items():
        (directory / name).write_text(text)


@pytest.mark.parametrize("invocation", INVOCATIONS, ids=lambda each: each.arguments)
def test_a_wrong_start_ends_like_go_s(
    invocation: Invocation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(invocation, tmp_path)
    monkeypatch.chdir(tmp_path)
    name, *arguments = shlex.split(invocation.arguments)
    code = run(name, arguments, invocation.environ)
    out, err = capsys.readouterr()
    assert (code, said(out), err) == (invocation.code, list(invocation.said), "")


@pytest.mark.parametrize(
    "invocation", PRIVILEGED if os.getuid() == 0 else (), ids=lambda each: each.arguments
)
def test_privileges_that_root_does_not_get_rid_of(invocation: Invocation, tmp_path: Path) -> None:
    done = run_alone(shlex.split(invocation.arguments), invocation.environ, tmp_path)
    assert (done.returncode, said(done.stdout)) == (invocation.code, list(invocation.said))
    assert done.stderr == ""


@pytest.mark.parametrize("name", [*PROGRAMS, MULTICALL])
def test_every_program_is_one_and_says_its_version(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = {} if name == MULTICALL else {"CNB_PLATFORM_API": "0.15"}
    assert run(name, ["-version"], environ) == 0
    out, err = capsys.readouterr()
    assert re.fullmatch(r"(\d+\.\d+.*|\(not installed\))\n", out)
    assert err == ""


@pytest.mark.parametrize("api", ["0.15", "0"])  # before and after the flags are read
def test_no_color_is_respected(api: str, capsys: pytest.CaptureFixture[str]) -> None:
    environ = {"CNB_PLATFORM_API": api, "NO_COLOR": "1"}
    assert run("builder", ["unknown"], environ)
    assert "\x1b" not in capsys.readouterr().out
    assert run("builder", ["unknown"], {**environ, "NO_COLOR": ""})
    assert "\x1b" in capsys.readouterr().out


def test_the_entry_point_knows_every_program() -> None:
    assert (*PROGRAMS, MULTICALL) == NAMES


def test_the_multicall_program_knows_every_phase(capsys: pytest.CaptureFixture[str]) -> None:
    environ = {"CNB_PLATFORM_API": "0.15"}
    assert run(MULTICALL, ["a/extend", "-x"], environ) == 3
    assert said(capsys.readouterr().out) == [
        "ERROR: failed to recognize phase: extend ",
        "Valid phases: analyze, detect, restore, build, export, create, rebase, publish",
    ]
    for phase in Phase:
        assert run(MULTICALL, [f"x/{phase.verb}", "-h"], environ) == 0
        assert capsys.readouterr().err.startswith("Usage of lifecycle:\n  -")


def test_a_wrong_flag_brings_the_usage_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("detector", ["-uid", "1"], {"CNB_PLATFORM_API": "0.7"}) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("flag provided but not defined: -uid\nUsage of lifecycle:\n  -app string")


def test_what_the_environment_says_is_the_default_in_the_usage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    environ = {
        "CNB_PLATFORM_API": "0.13",
        "CNB_USER_ID": "7",
        "CNB_INSECURE_REGISTRIES": "a,b",
        "CNB_USE_DAEMON": "T",
        "CNB_LAYERS_DIR": "/l\udcff",
    }
    assert run("analyzer", ["-h"], environ) == 0
    err = capsys.readouterr().err
    for said in ("(default 7)", "(default [a b])", "(default true)", r'(default "/l\xff")'):
        assert said in err


@pytest.mark.parametrize(
    ("program", "words"),
    [("analyzer", ["-run-image=run", "app"]), ("restorer", []), ("exporter", ["app"])],
)
def test_a_phase_on_layouts_loads_nothing_that_it_does_not_need(
    program: str, words: list[str], tmp_path: Path
) -> None:
    assert not _loaded(program, ["-h"]) & (_HEAVY | {"isal"})
    (tmp_path / "group.toml").touch()
    (tmp_path / "analyzed.toml").write_text('[run-image]\nreference = "run"\n')
    loaded = _loaded(program, ["-layout", f"-layout-dir={tmp_path}", f"-layers={tmp_path}", *words])
    assert "ocistow.lifecycle.targets.layout" in loaded
    assert not loaded & _HEAVY


_HEAVY = {
    *("click", "requests", "urllib3", "http", "ssl", "sqlite3", "zstandard", "email", "asyncio"),
    *("trio", "importlib.metadata", "tarfile", "ocistow.store.store"),
}


def _loaded(program: str, arguments: list[str]) -> set[str]:
    """Return the modules that a phase has loaded when it ends."""
    look = (
        f"import sys; sys.argv = {[program, *arguments]!r}\n"
        "from ocistow.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('\\n' + ' '.join(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", look],
        env={
            "PYTHONPATH": str(SOURCES),
            "CNB_PLATFORM_API": "0.12",
            "CNB_EXPERIMENTAL_MODE": "quiet",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("value", ["{", "[]", '{"secret": 1}', '{"a": "Basic secret"'])
def test_the_platform_s_credentials_are_read_first(
    value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = {"CNB_PLATFORM_API": "0.12", "CNB_REGISTRY_AUTH": value}
    arguments = ["-oci", "-layers", str(tmp_path), "-run-image", "run", "app"]
    assert run("analyzer", arguments, environ) == 1
    out = capsys.readouterr().out
    assert "failed to resolve keychain: reading auth env var: " in out
    assert "failed to parse CNB_REGISTRY_AUTH value: " in out
    assert "Basic" not in out


def test_a_bug_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(program, "inputs_of", broken)
    assert run("analyzer", ["aa"], {"CNB_PLATFORM_API": "0.12"}) == 1
    out, err = capsys.readouterr()
    assert said(out) == ["ERROR: analyzer has a bug: ZeroDivisionError"]
    assert err.startswith("Traceback")
