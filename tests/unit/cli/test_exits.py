"""Every exit status of the table, from a real process, with one line and no traceback."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ocistow.testing.descriptors import open_files
from ocistow.testing.images import image_layout, index_layout, sparse_layout
from ocistow.testing.registry import Registry

from .conftest import Ocistow, environment


def assert_refused(done: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    """Check the status, and that stderr is one line that has all the words."""
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("ocistow: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


@pytest.fixture
def image(tmp_path: Path, run: Ocistow) -> str:
    """Put an image into the store and return its name."""
    image_layout(tmp_path / "layout")
    assert run("add", "oci:layout", "e.x/app:1").returncode == 0
    return "e.x/app:1"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--nope"], ["--nope", "ocistow -h"]),
        (["nope"], ["nope"]),
        (["add"], ["SOURCE", "ocistow add -h"]),
        (["add", "oci:layout", "a", "b"], ["(b)"]),
        (
            ["add", "oci:layout"],
            ["'latest', which is no whole name", "ocistow add oci:layout NAME"],
        ),
        (["add", "oci:layout", "a", "--jobs", "0"], ["--jobs", "1<=x<=64"]),
        (["add", "oci:layout", "a", "--jobs", "many"], ["--jobs", "many"]),
        (["add", "oci:layout", "a", "--creds", "secret"], ["USER:PASS"]),
        (["add", "oci:layout", "a", "--platform", "linux"], ["--platform", "linux/amd64"]),
        (["add", "oci:layout", "a", "--progress", "loud"], ["--progress", "loud"]),
        (["publish", "a"], ["DEST"]),
        (["inspect", "a", "--raw", "--json"], ["--raw, --config and --json"]),
        (["rm"], ["NAME"]),
        (["tag", "a"], ["NEWNAME"]),
        (["--log-format", "xml", "ls"], ["xml"]),
    ],
)
def test_wrong_usage(tmp_path: Path, run: Ocistow, arguments: list[str], words: list[str]) -> None:
    image_layout(tmp_path / "layout")
    done = run(*arguments)
    assert_refused(done, 2, *words)
    assert "secret" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["add", "foo:bar", "a"], ["foo:bar", "docker://"]),
        (["add", "oci:layout", "../a"], ["../a", "'..'"]),
        (["add", "oci:layout", "a\x1b[2Jb"], ["not an image reference"]),
        (["add", "oci:layout", f"a@sha256:{'0' * 64}"], ["0000", "cannot name"]),
        (["add", "oci:broken", "a"], ["index.json", "not JSON"]),
        (["add", "oci:layout", "e.x/app/1/within:x"], ["would lie inside the layout e.x/app/1"]),
        (["tag", "e.x/app:1", f"a@sha256:{'0' * 64}"], ["cannot name"]),
        (["tag", "e.x/app:1", "UPPER/case"], ["UPPER/case"]),
        (["inspect", "a//b"], ["a//b"]),
        (["publish", "e.x/app:1", "foo:bar"], ["foo:bar", "docker-daemon:"]),
        (["--config", "bad.toml", "ls"], ["bad.toml", "'stoer'"]),
        (["--store", "layout", "add", "oci:layout", "a"], ["is no store and not empty"]),
    ],
)
def test_malformed_content_or_words(
    tmp_path: Path, run: Ocistow, image: str, arguments: list[str], words: list[str]
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "index.json").write_text("{")
    (tmp_path / "bad.toml").write_text("stoer = '/x'")
    done = run(*arguments)
    assert_refused(done, 65, *words)
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("source", ["foo:bar", "oci", "docker:"])
def test_nothing_is_made_for_a_source_that_means_nothing(
    tmp_path: Path, run: Ocistow, source: str
) -> None:
    assert_refused(run("add", source, "a"), 65, source)
    assert not (tmp_path / "store").exists()


def test_a_blob_that_is_not_what_its_name_says(tmp_path: Path, run: Ocistow) -> None:
    made = image_layout(tmp_path / "layout")
    blob = made.blob(made.layers[0])
    blob.write_bytes(bytes(blob.stat().st_size))
    assert_refused(run("add", "oci:layout", "a"), 65, str(made.layers[0]))
    assert_refused(run("inspect", "a"), 66, "a")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["add", "oci:absent", "a"], ["absent"]),
        (["add", "oci:layout:nope", "a"], ["nope"]),
        (["add", "oci:multi", "a", "--platform", "linux/s390x"], ["linux/s390x"]),
        (["publish", "nope", "docker://127.0.0.1:1/a"], ["nope"]),
        (["inspect", "nope"], ["nope"]),
        (["tag", "nope", "a"], ["nope"]),
        (["rm", "e.x/app:1", "nope"], ["nope"]),
        (["du", "nope"], ["nope"]),
        (["--store", "nostore", "ls"], ["nostore"]),
        (["--store", "nostore", "du"], ["nostore"]),
        (["--store", "nostore", "rm", "a"], ["nostore"]),
        (["--store", "nostore", "tag", "a", "b"], ["nostore"]),
        (["--store", "nostore", "inspect", "a"], ["nostore"]),
        (["--store", "nostore", "publish", "a", "docker://127.0.0.1:1/a"], ["nostore"]),
    ],
)
def test_what_is_not_there(
    tmp_path: Path, run: Ocistow, image: str, arguments: list[str], words: list[str]
) -> None:
    index_layout(tmp_path / "multi")
    assert_refused(run(*arguments), 66, *words)
    assert not (tmp_path / "nostore").exists()
    assert run("inspect", image).returncode == 0, "rm of one bad name must remove nothing"


def test_the_image_that_lacks_a_blob_is_named(tmp_path: Path, run: Ocistow) -> None:
    made = sparse_layout(tmp_path / "sparse")
    assert run("add", "oci:sparse", "e.x/sparse:1").returncode == 0
    assert_refused(run("publish", "e.x/sparse:1", "oci:out"), 66, "e.x/sparse:1", "sha256:")
    for directory in ("store", "store/layouts/e.x/sparse/1"):
        (tmp_path / directory / "blobs" / "sha256" / made.manifest.encoded).unlink()
    assert_refused(run("inspect", "e.x/sparse:1"), 66, "e.x/sparse:1", str(made.manifest))


def test_a_registry_that_refuses(run: Ocistow, image: str) -> None:
    with Registry(credentials=("me", "right")) as registry:
        target = f"docker://{registry.host}/app:1"
        done = run("publish", image, target, "--creds", "me:wrong")
        assert_refused(done, 69, registry.host)
        assert "wrong" not in done.stderr
        assert run("publish", image, target, OCISTOW_CREDS="me:right").returncode == 0


def test_a_bug_keeps_its_traceback(run: Ocistow, image: str) -> None:
    first = "from ocistow.store.store import Store\nStore.names = lambda *_: 1 // 0"
    done = run("ls", first=first)
    assert done.returncode == 70
    assert "Traceback" in done.stderr
    assert done.stderr.endswith("ZeroDivisionError: integer division or modulo by zero\n")


def test_the_disks_refusal_names_the_object(tmp_path: Path, run: Ocistow, image: str) -> None:
    (tmp_path / "file").write_text("")
    assert_refused(run("--store", "file", "add", "oci:layout", "a"), 74, str(tmp_path / "file"))
    assert_refused(run("--config", "absent.toml", "ls"), 74, "absent.toml", "No such file")
    with open("/dev/full", "w") as full:
        done = run("ls", stdout=full.fileno())
        done.stdout = ""
    assert_refused(done, 74, "standard output", "No space left")


def test_a_store_that_is_held(tmp_path: Path, run: Ocistow, image: str) -> None:
    impatient = "from ocistow.store.lock import Lock\nLock.__init__.__defaults__ = (0.05,)"
    with (tmp_path / "store" / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for arguments in (["tag", image, "b"], ["rm", image], ["add", "oci:layout", "c"]):
            assert_refused(run(*arguments, first=impatient), 75, str(tmp_path / "store" / "lock"))
    assert [line.split()[0] for line in run("ls").stdout.splitlines()[1:]] == [image]


def test_a_registry_that_is_not_there(run: Ocistow, image: str) -> None:
    with Registry() as registry:
        host = registry.host
    assert_refused(run("publish", image, f"docker://{host}/a:1"), 75, host)


def test_no_permission(tmp_path: Path, run: Ocistow, image: str) -> None:
    os.chmod(tmp_path / "store" / "ocistow.json", 0)
    # root without its capabilities, not another user: they may not be allowed to read the code
    under = ("setpriv", "--bounding-set=-all") if os.geteuid() == 0 else ()
    for arguments in (["ls"], ["add", "oci:layout", "c"]):
        done = run("--store", str(tmp_path / "store"), *arguments, under=under)
        assert_refused(done, 77, str(tmp_path / "store"), "ermission denied")


def test_an_interrupt(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    # an end that can be written to makes the process wait in read(2), not in open(2)
    end = os.open(tmp_path / "fifo", os.O_RDWR)
    try:
        with subprocess.Popen(
            [sys.executable, "-m", "ocistow.cli", "-v", "--config", tmp_path / "fifo", "ls"],
            env=environment(tmp_path / "store"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            while process.poll() is None and not waits_for(process.pid, tmp_path / "fifo"):
                os.sched_yield()
            process.send_signal(signal.SIGINT)
            out, error = process.communicate(timeout=60)
    finally:
        os.close(end)
    assert (process.returncode, out) == (130, ""), error
    assert error == "\nocistow: interrupted\n"  # the terminal's ^C keeps a line of its own


def waits_for(process: int, file: Path) -> bool:
    """Tell whether a process sleeps, having opened a file.

    It is not enough that the file is open: Python sees a signal that comes after its last look
    and before read(2) begins only when that ends.
    """
    if not any(name == str(file) for _, name in open_files(process)):
        return False
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def test_a_reader_that_is_gone(run: Ocistow, image: str) -> None:
    for arguments in (["ls"], ["du", "--json"], ["inspect", image, "--raw"], ["-h"]):
        read, write = os.pipe()
        os.close(read)
        done = run(*arguments, stdout=write)
        os.close(write)
        assert done.stderr == "", arguments
        # help is click's own, and so is its status
        assert done.returncode == (1 if arguments == ["-h"] else 141), arguments


def test_closed_output_is_nobodys_file(tmp_path: Path, run: Ocistow, image: str) -> None:
    for arguments in (["ls"], ["inspect", image, "--raw"], ["add", "oci:layout", "b"]):
        program = 'exec "$@" >&- 2>&-'
        done = subprocess.run(
            ["sh", "-c", program, "sh", sys.executable, "-m", "ocistow.cli", *arguments],
            env=environment(tmp_path / "store"),
            cwd=tmp_path,
        )
        assert done.returncode == 0, arguments
    assert run("inspect", "b").returncode == 0


@pytest.mark.parametrize("host", ["a..b:5000", f"{'a' * 80}.com:5000"])
def test_a_mistyped_host_gives_one_line(run: Ocistow, image: str, host: str) -> None:
    target = f"docker://{host}/x:1"
    for arguments in (["add", target], ["publish", image, target]):
        assert_refused(run(*arguments), 69, host, "not a host name")
    done = run("publish", image, "docker-daemon:x:1", DOCKER_HOST=f"tcp://{host}")
    assert_refused(done, 69, host, "not a host name")
