"""How programs of buildpacks are run."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ocistow.lifecycle.buildpacks import execution
from ocistow.lifecycle.buildpacks.execution import NotStarted, Program, how_ended, run, unnamed
from ocistow.testing.descriptors import open_files

SHELL = "/bin/sh"


def shell(script: str, directory: Path, **variables: str) -> tuple[int, bytes]:
    written: list[bytes] = []
    environment = {"PATH": os.defpath, **variables}
    status = run([SHELL, "-c", script], directory, environment, written.append)
    return status, b"".join(written)


def test_both_streams_are_passed_on_in_their_order(tmp_path: Path) -> None:
    status, output = shell("echo one; echo two >&2; echo three; exit 7", tmp_path)
    assert (status, output) == (7, b"one\ntwo\nthree\n")


def test_much_output_does_not_block(tmp_path: Path) -> None:
    status, output = shell(
        "i=0; while [ $i -lt 300 ]; do printf %01000d $i; i=$((i+1)); done", tmp_path
    )
    assert (status, len(output)) == (0, 300_000)


def test_a_program_has_its_variables_its_directory_and_no_stdin(tmp_path: Path) -> None:
    _, output = shell('pwd; cat; env | grep "^[A-O]" | sort', tmp_path, A="1", **{"B=C": "2"})
    assert output.decode().split() == [str(tmp_path), "A=1", "B=C=2"]


def test_a_program_gets_no_descriptor_but_its_streams(tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as secret:
        os.set_inheritable(secret.fileno(), True)
        _, output = shell("ls /proc/self/fd", tmp_path)
    assert output.split() == [b"0", b"1", b"2", b"3"]  # the last is what `ls` reads


def test_a_broken_pipe_ends_a_program_as_it_does_elsewhere(tmp_path: Path) -> None:
    status, _ = shell("kill -PIPE $$; echo survived", tmp_path)
    assert status == -signal.SIGPIPE


def test_what_goes_on_writing_in_the_background_is_not_waited_for(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    times = 0

    def write_more(data: bytes) -> None:
        nonlocal times
        times += 1
        assert times < 100_000, "it never ends"
        os.write(writing, data)

    try:
        with Program.start([SHELL, "-c", "echo x"], tmp_path, {}, writing) as program:
            program.copy(reading, write_more)
            assert program.wait() == 0
    finally:
        os.close(reading)
        os.close(writing)
    assert times


def test_what_stays_in_the_background_is_not_waited_for(tmp_path: Path) -> None:
    status, output = shell("sleep 60 & echo $!", tmp_path)
    try:
        assert status == 0
        assert Path(f"/proc/{int(output)}").exists()
    finally:
        os.kill(int(output), signal.SIGKILL)


@pytest.mark.parametrize(
    ("command", "directory", "expected"),
    [
        ("/absent/program", "/", "fork/exec /absent/program: no such file or directory"),
        ("/etc/passwd", "/", "fork/exec /etc/passwd: permission denied"),
        (SHELL, "/absent", "chdir /absent: no such file or directory"),
        (SHELL, "/etc/passwd", "chdir /etc/passwd: not a directory"),
    ],
)
def test_what_cannot_be_executed_is_said_as_go_says_it(
    command: str, directory: str, expected: str
) -> None:
    with unnamed() as output, pytest.raises(NotStarted) as caught:
        Program.start([command], Path(directory), {}, output.fileno())
    assert str(caught.value) == expected


def test_a_script_without_interpreter_is_said_as_go_says_it(tmp_path: Path) -> None:
    script = tmp_path / "build"
    script.write_text("echo built\n")
    script.chmod(0o755)
    with pytest.raises(NotStarted, match=f"^fork/exec {script}: exec format error$"):
        run([str(script)], tmp_path, {}, lambda _: None)


def test_an_end_is_worded_as_go_words_it() -> None:
    assert [how_ended(status) for status in (0, 1, 255)] == [
        "exit status 0",
        "exit status 1",
        "exit status 255",
    ]
    assert [how_ended(-number) for number in (signal.SIGKILL, signal.SIGSEGV)] == [
        "signal: killed",
        "signal: segmentation fault",
    ]


def test_a_program_and_its_children_end_with_the_block(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    script = f"sleep 60 & {sys.executable} -c 'import time; print(1, flush=True); time.sleep(60)'"
    with open(reading, "rb") as read:
        with Program.start([SHELL, "-c", script], tmp_path, {}, writing) as program:
            os.close(writing)
            assert read.readline() == b"1\n"
        assert read.read() == b""  # nobody has the other end of the pipe any more
        assert program.wait() == -signal.SIGTERM


def test_a_program_that_ignores_sigterm_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "PATIENCE", 0.05)
    reading, writing = os.pipe()
    script = "trap '' TERM; echo ready; while :; do sleep 60; done"
    with open(reading, "rb") as read:
        with Program.start(
            [SHELL, "-c", script], tmp_path, {"PATH": os.defpath}, writing
        ) as program:
            os.close(writing)
            assert read.readline() == b"ready\n"
        assert program.wait() == -signal.SIGKILL


def test_nothing_is_left_open(tmp_path: Path) -> None:
    before = open_files()
    shell("echo x", tmp_path)
    with pytest.raises(NotStarted):
        run(["/absent"], tmp_path, {}, lambda _: None)
    with pytest.raises(subprocess.TimeoutExpired):  # whatever ends the phase
        run([SHELL, "-c", "echo x; sleep 60"], tmp_path, {"PATH": os.defpath}, _refuse)
    assert open_files() <= before


def _refuse(_: bytes) -> None:
    raise subprocess.TimeoutExpired("phase", 0)
