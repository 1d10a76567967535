"""Programs that are measured."""

import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from ocistow.bench.processes import ProgramFailed, forget_peak, peak_of, timed, warm_memory

PAGE = 4096  # bytes of memory are enough


def test_a_failure_says_what_the_program_wrote_last() -> None:
    with pytest.raises(ProgramFailed, match="status 3: no such image"):
        timed("sh", "-c", "echo no such image >&2; exit 3", warm=PAGE)


def test_a_peak_is_that_of_what_is_measured() -> None:
    warm_memory(64 << 20)
    before = peak_of(os.getpid())
    forget_peak(os.getpid())
    assert peak_of(os.getpid()) < before - (32 << 20)


def test_after_an_interrupt_the_program_has_cleaned_up(tmp_path: Path) -> None:
    begun, cleaned = tmp_path / "begun", tmp_path / "cleaned"
    os.mkfifo(begun)

    def interrupt() -> None:
        begun.read_bytes()
        os.kill(os.getpid(), signal.SIGINT)

    script = f"trap 'sleep 0.1; : > {cleaned}; exit' TERM; : > {begun}; sleep 60 & wait"
    watcher = threading.Thread(target=interrupt)
    watcher.start()
    with pytest.raises(KeyboardInterrupt):
        timed("sh", "-c", script, warm=PAGE)
    assert cleaned.exists()
    watcher.join()


def test_an_interrupt_while_a_program_is_started_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen[bytes]

    def interrupted(*command: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(popen(*command, **options))
        signal.raise_signal(signal.SIGINT)
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    with pytest.raises(KeyboardInterrupt):
        timed("sleep", "60", warm=PAGE)
    assert started[0].poll() is not None
