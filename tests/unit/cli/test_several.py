"""One image to several destinations at once, and what ends that."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ocistow.store.store import Store
from ocistow.testing.faults import Fault, Hang, Status
from ocistow.testing.images import image_layout
from ocistow.testing.registry import Registry

from .conftest import Ocistow, environment

HANG = 60.0  # seconds; what is interrupted waits for more


def test_one_that_refuses_does_not_stop_the_others(tmp_path: Path, run: Ocistow) -> None:
    image_layout(tmp_path / "layout")
    assert run("add", "oci:layout", "e.x/app:1").returncode == 0
    with Registry() as registry, Registry() as refusing:
        refusing.faults.append(Fault("POST", "/blobs/", Status(403), times=None))
        good = [f"docker://{registry.host}/{name}:1" for name in "ab"]
        bad = f"docker://{refusing.host}/app:1"
        done = run("publish", "e.x/app:1", good[0], bad, good[1], "--report", "report.json")
        as_json = run("publish", "e.x/app:1", bad, good[0], "--json")
    assert done.returncode == as_json.returncode == 69
    assert [line.split(": ")[0] for line in done.stdout.splitlines()] == [
        f"pushed {place}" for place in good
    ]
    [line] = done.stderr.splitlines()
    assert line.startswith(f"ocistow: {bad}: ")
    assert "403" in line
    report = json.loads((tmp_path / "report.json").read_text())
    assert ["error" in place for place in report["destinations"]] == [False, True, False]
    published = json.loads(as_json.stdout)["published"]
    assert ["error" in place for place in published] == [True, False]


def test_the_jobs_are_those_of_all_together(tmp_path: Path, run: Ocistow) -> None:
    image_layout(tmp_path / "layout", layers=6)
    assert run("add", "oci:layout", "e.x/app:1").returncode == 0
    with Registry() as registry:
        registry.faults.append(Fault("PUT", "/blobs/", Hang(), times=None))
        places = [f"docker://{registry.host}/{name}:1" for name in "abc"]
        with started(tmp_path, "publish", "e.x/app:1", *places, "--jobs", "2") as process:
            wait_for_uploads(registry, 2)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=HANG)
        assert sum(request.method == "PUT" for request in registry.requests) == 2


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
@pytest.mark.parametrize("count", [1, 2])
def test_a_signal_ends_all_soon(
    tmp_path: Path, run: Ocistow, number: signal.Signals, status: int, word: str, count: int
) -> None:
    image_layout(tmp_path / "layout")
    assert run("add", "oci:layout", "e.x/app:1").returncode == 0
    with Registry() as registry:
        registry.faults.append(Fault("PUT", "/blobs/", Hang(), times=None))
        places = [f"docker://{registry.host}/{name}:1" for name in "ab"[:count]]
        with started(tmp_path, "publish", "e.x/app:1", *places) as process:
            wait_for_uploads(registry, 3)
            process.send_signal(number)
            stdout, stderr = process.communicate(timeout=HANG)
        assert process.returncode == status
        assert stdout == ""
        assert stderr.strip() == f"ocistow: {word}"
        assert not any(registry.repositories.tags(name) for name in "ab")
        registry.faults.clear()
        with Store.open(tmp_path / "store") as store:
            assert set(store.leases.held()) == set()
        assert run("tag", "e.x/app:1", "e.x/app:2").returncode == 0
        assert run("publish", "e.x/app:1", *places).returncode == 0


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_what_was_published_before_a_signal_is_said(
    tmp_path: Path, run: Ocistow, options: tuple[str, ...]
) -> None:
    image_layout(tmp_path / "layout")
    assert run("add", "oci:layout", "e.x/app:1").returncode == 0
    with Registry() as registry, Registry() as hanging:
        hanging.faults.append(Fault("PUT", "/blobs/", Hang(), times=None))
        places = [f"docker://{server.host}/app:1" for server in (hanging, registry)]
        arguments = ["--jobs=9", "--progress=json", *options]
        with started(tmp_path, "publish", "e.x/app:1", *places, *arguments) as process:
            assert process.stderr is not None
            while '"done"}' not in process.stderr.readline():
                pass
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=HANG)
    assert process.returncode == 130
    said = stderr if options else stdout
    [line] = [line for line in said.splitlines() if line.startswith("pushed ")]
    assert line.startswith(f"pushed {places[1]}: 5 sent ")
    assert stderr.endswith("ocistow: interrupted\n")


def test_a_signal_while_adding_leaves_nothing_named(tmp_path: Path, run: Ocistow) -> None:
    image = image_layout(tmp_path / "layout")
    assert run("add", "oci:layout", "e.x/app:1").returncode == 0
    with Registry() as registry:
        place = f"docker://{registry.host}/app:1"
        assert run("publish", "e.x/app:1", place).returncode == 0
        registry.requests.clear()
        registry.faults.append(Fault("GET", str(image.layers[1]), Hang(), times=None))
        with started(
            tmp_path, "add", place, "e.x/new:1", OCISTOW_STORE=str(tmp_path / "other")
        ) as process:
            wait_for(lambda: any(str(image.layers[1]) in r.path for r in registry.requests))
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=HANG)
        assert process.returncode == 143
        other = str(tmp_path / "other")
        assert run("ls", OCISTOW_STORE=other).stdout == ""
        registry.faults.clear()
        assert run("add", place, "e.x/new:1", OCISTOW_STORE=other).returncode == 0


def test_work_that_cannot_be_interrupted_is_left(tmp_path: Path) -> None:
    program = (
        "import signal, time\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from ocistow.cli.signals import ending_soon\n"
        "with ending_soon(), ThreadPoolExecutor(1) as executor:\n"
        "    executor.submit(time.sleep, 600)\n"
        "    print('ready', flush=True)\n"
        "    signal.pause()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=HANG)
    assert process.returncode == 143
    assert stderr.strip() == "ocistow: terminated"


def test_the_same_destination_twice_is_refused(run: Ocistow) -> None:
    done = run("publish", "a", "docker://e.x/a", "docker://e.x/b", "docker://e.x/a")
    assert done.returncode == 2
    assert "docker://e.x/a is named twice" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["add", "podman:x"], "'podman:x' is no source: it does not start with one of"),
        (
            ["publish", "a", "nothing:x"],
            "'nothing:x' is no destination: it does not start with one of",
        ),
    ],
)
def test_a_transport_of_the_other_direction_is_refused(
    run: Ocistow, arguments: list[str], said: str
) -> None:
    done = run(*arguments)
    assert done.returncode == 65
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_standard_input_is_read_once(run: Ocistow) -> None:
    done = run("add", "-", "a", "--creds", "user", "--password-stdin")
    assert done.returncode == 2
    assert "both read standard input" in done.stderr


def test_what_is_not_there_is_said(tmp_path: Path, run: Ocistow) -> None:
    done = run("publish", "a", "docker://127.0.0.1:1/a")
    assert (done.returncode, done.stderr) == (
        66,
        f"ocistow: a store at {tmp_path / 'store'}: not found\n",
    )
    image_layout(tmp_path / "layout")
    assert run("add", "oci:layout", "a").returncode == 0
    done = run("publish", "absent", "docker://127.0.0.1:1/a")
    assert (done.returncode, done.stderr) == (66, "ocistow: absent: not found\n")


@contextmanager
def started(tmp_path: Path, *arguments: str, **more: str) -> Generator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [sys.executable, "-m", "ocistow.cli", *arguments],
        env=environment(tmp_path / "store", **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_uploads(registry: Registry, count: int) -> None:
    def there() -> bool:
        return sum(request.method == "PUT" for request in registry.requests) >= count

    wait_for(there)


def wait_for(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + HANG
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.005)  # the registry has no way to call us
