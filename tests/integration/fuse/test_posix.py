"""docs/posix.md, line by line: what the mount answers, and the disk beside it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from ocistow.testing import filesystems
from ocistow.testing.mounts import Mount, environment
from ocistow.testing.posix import Case, cases

pytestmark = pytest.mark.fuse

PAGE = Path(__file__).parents[3] / "docs" / "posix.md"
CASES = list(cases(PAGE.read_text()))
SUBJECTS = list(dict.fromkeys(case.subject for case in CASES))
NOBODY = 65534

Outcomes = Mapping[str, str]


def asked(subject: str, user: int) -> list[Case]:
    who = ("", "user" if user else "root")
    return [case for case in CASES if case.subject == subject and case.who in who]


def run_page(directory: Path, user: int) -> Outcomes:
    """Run the whole page in a new directory, in a process of its own."""
    directory.mkdir()
    directory.chmod(0o777)
    command = [sys.executable, "-m", "ocistow.testing.posix", *map(str, (PAGE, directory, user))]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    outcomes: Outcomes = json.loads(done.stdout)
    return outcomes


@pytest.fixture(scope="session", params=["root", "user"])
def user(request: pytest.FixtureRequest) -> int:
    if os.geteuid() == 0:
        return 0 if request.param == "root" else NOBODY
    if request.param == "root":
        pytest.skip("only root can be root")
    return os.geteuid()


@pytest.fixture(scope="session")
def on_mount(shared_mount: Mount, user: int) -> Outcomes:
    return run_page(shared_mount.path / f"posix-{user}", user)


@pytest.fixture(scope="session")
def on_disk(tmp_path_factory: pytest.TempPathFactory, user: int) -> Outcomes:
    place = tmp_path_factory.mktemp("posix") / "ext4"
    try:
        # one of less than 512 MB would have blocks of 1 KiB
        with filesystems.mounted("ext4", place, size=1 << 30) as path:
            return run_page(path / "page", user)
    except filesystems.Unavailable as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("subject", SUBJECTS)
def test_the_mount_answers_as_the_page_says(subject: str, user: int, on_mount: Outcomes) -> None:
    expected = {case.program: case.mount for case in asked(subject, user)}
    assert {program: on_mount[program] for program in expected} == expected


@pytest.mark.parametrize("subject", SUBJECTS)
def test_ext4_answers_as_the_page_says(subject: str, user: int, on_disk: Outcomes) -> None:
    expected = {case.program: case.ext4 for case in asked(subject, user)}
    assert {program: on_disk[program] for program in expected} == expected
