"""Archives on the command line: where they go, and what else is said then."""

import io
import json
import os
import pty
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from ocistow.testing.images import image_layout

from .conftest import Ocistow, environment

FORMS = ("oci-archive", "docker-archive")


def published(tmp_path: Path, *arguments: str) -> tuple[bytes, str]:
    """Run `publish` and return what it writes to stdout and stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "ocistow.cli", "publish", *arguments],
        env=environment(tmp_path / "store"),
        cwd=tmp_path,
        capture_output=True,
        check=True,
        timeout=60,
    )
    return done.stdout, done.stderr.decode()


def names(archive: bytes) -> set[str]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return set(tar.getnames())


@pytest.fixture(autouse=True)
def app(tmp_path: Path, run: Ocistow) -> None:
    image_layout(tmp_path / "layout")
    assert run("add", "oci:layout", "app").returncode == 0


@pytest.mark.parametrize("form", FORMS)
def test_only_the_archive_goes_to_stdout(tmp_path: Path, form: str) -> None:
    stdout, stderr = published(tmp_path, "app", f"{form}:-:app:1", f"{form}:file.tar:app:1")
    assert stdout == (tmp_path / "file.tar").read_bytes()
    assert stderr.count("pushed ") == 2
    stdout, stderr = published(tmp_path, "app", f"{form}:-", "--json")
    assert "index.json" in names(stdout)
    assert json.loads(stderr)["published"][0]["destination"] == f"{form}:-"


def test_only_one_archive_goes_to_stdout(run: Ocistow) -> None:
    done = run("publish", "app", "oci-archive:-:1", "docker-archive:-")
    assert (done.returncode, done.stdout) == (2, "")
    assert "only one archive" in done.stderr


def test_a_terminal_gets_no_archive(run: Ocistow) -> None:
    master, slave = pty.openpty()
    done = run("publish", "app", "oci-archive:-", stdout=slave)
    os.close(slave)
    assert done.returncode == 65
    assert done.stderr.endswith("is not written to a terminal: name a file or a pipe\n")
    os.set_blocking(master, False)
    with pytest.raises(OSError, match="Input/output"):
        os.read(master, 1)
    os.close(master)


def test_blobs_of_other_images_are_left_out(tmp_path: Path, run: Ocistow) -> None:
    base = image_layout(tmp_path / "layout", tag="base")
    above = image_layout(tmp_path / "layout", seed=2, layers=1, base=base, tag="above")
    for tag in ("base", "above"):
        assert run("add", f"oci:layout:{tag}", tag).returncode == 0
    stdout, stderr = published(tmp_path, "above", "oci-archive:-", "--without", "base")
    assert "3 sent" in stderr
    assert {name[-64:] for name in names(stdout)} == {
        "oci-layout",
        "index.json",
        *(digest.encoded for digest in (above.manifest, above.config, above.layers[-1])),
    }
    assert run("publish", "above", "oci:x", "--without", "base").returncode == 2
    assert run("publish", "above", "oci-archive:x", "--without", "none").returncode == 66
    assert not (tmp_path / "x").exists()
