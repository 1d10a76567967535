"""What is handed over to the user of the build image, and that nothing of root is left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ocistow.lifecycle.invocation.privileges import hand_over
from ocistow.oci.errors import PhaseFailed

from ..test_program import SOURCES

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")

UID, GID = 54321, 54322


def owners(directory: Path) -> dict[str, tuple[int, int]]:
    found = [directory, *sorted(directory.rglob("*"))]
    return {
        str(path.relative_to(directory)): (path.lstat().st_uid, path.lstat().st_gid)
        for path in found
    }


@pytest.fixture
def layers(tmp_path: Path) -> Path:
    """Return a directory with a file, a link to one outside and a link to a directory outside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").touch()
    layers = tmp_path / "layers"
    (layers / "bp" / "layer").mkdir(parents=True)
    (layers / "bp" / "layer" / "file").touch()
    (layers / "file").symlink_to(outside / "secret")
    (layers / "bp" / "directory").symlink_to(outside)
    (layers / "nowhere").symlink_to("none")
    return layers


@needs_root
def test_a_directory_is_handed_over_whole_but_nothing_outside_of_it(layers: Path) -> None:
    hand_over(layers, UID, GID)
    assert set(owners(layers).values()) == {(UID, GID)}
    assert set(owners(layers.parent / "outside").values()) == {(0, 0)}


@needs_root
def test_the_directory_itself_may_be_a_link(layers: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(layers)
    hand_over(tmp_path / "link", UID, GID)
    assert set(owners(layers).values()) == {(UID, GID)}
    assert (tmp_path / "link").lstat().st_uid == 0


@needs_root
@pytest.mark.parametrize(
    ("uid", "gid", "mode"), [(UID, 0, 0o700), (0, GID, 0o770), (0, 0, 0o707), (UID, 0, 0o000)]
)
def test_what_the_user_may_write_stays(layers: Path, uid: int, gid: int, mode: int) -> None:
    os.chown(layers, uid, gid)
    layers.chmod(mode)
    before = owners(layers)
    hand_over(layers, UID, GID)
    assert owners(layers) == before


@needs_root
def test_a_group_that_may_only_read_is_not_enough(layers: Path) -> None:
    os.chown(layers, 0, GID)
    layers.chmod(0o750)
    hand_over(layers, UID, GID)
    assert set(owners(layers).values()) == {(UID, GID)}


def test_what_is_not_there_is_nobody_s(tmp_path: Path) -> None:
    hand_over(tmp_path / "none", UID, GID)
    assert os.listdir(tmp_path) == []


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(PhaseFailed, match=r"failed to chown volumes: open .*: not a directory"):
        hand_over(file, UID, GID)


_BECOME = """
import os, sys
from pathlib import Path
from ocistow.lifecycle.invocation.arguments import Phase
from ocistow.lifecycle.inputs import Inputs
from ocistow.lifecycle.platform_api import Version
from ocistow.lifecycle.invocation.privileges import drop
uid, gid = map(int, sys.argv[2:])
inputs = Inputs(Version(0, 12), uid=uid, gid=gid, layers_dir=Path("/none"))
inputs = drop(Phase[sys.argv[1]], inputs)
print(os.getresuid(), os.getresgid(), os.getgroups(), dict(inputs.environ))
"""


def become(phase: str, uid: int, gid: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _BECOME, phase, str(uid), str(gid)],
        env={"PYTHONPATH": str(SOURCES)},
        capture_output=True,
        text=True,
        timeout=60,
    )


@needs_root
@pytest.mark.parametrize("phase", ["ANALYZE", "RESTORE", "EXPORT", "REBASE", "PUBLISH"])
def test_nothing_of_root_is_left(phase: str) -> None:
    ids, groups = f"({UID}, {UID}, {UID})", f"({GID}, {GID}, {GID})"
    assert become(phase, UID, GID).stdout == f"{ids} {groups} [{GID}] {{}}\n"


@needs_root
def test_the_creator_also_takes_over_the_user_s_home() -> None:
    assert become("CREATE", 65534, GID).stdout.endswith(
        f"[{GID}] {{'HOME': '/nonexistent', 'USER': 'nobody'}}\n"
    )


@needs_root
def test_nobody_is_not_minus_one() -> None:
    done = become("EXPORT", -1, 0)
    assert done.stdout == ""
    assert done.stderr.endswith("failed to exec as user -1:0: invalid argument\n")


def test_the_publisher_stays_who_it_is_unless_told() -> None:
    assert become("PUBLISH", 0, 0).stdout.startswith(str(os.getresuid()))


_BUILDPACK = """
import ctypes, os, subprocess, sys
from ocistow.lifecycle.invocation.arguments import Phase
from ocistow.lifecycle.inputs import Inputs
from ocistow.lifecycle.platform_api import Version
from ocistow.lifecycle.invocation.privileges import drop
uid = int(sys.argv[1])
os.setresuid(uid, uid, uid)
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE, as if it never was root
drop(Phase.BUILD, Inputs(Version(0, 12)))
for file in ("environ", "mem"):
    subprocess.run(["head", "-c", "1", f"/proc/{os.getpid()}/{file}"])
"""


@needs_root
def test_buildpacks_do_not_see_environment_and_memory_of_their_phase() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _BUILDPACK, str(UID)],
        env={"PYTHONPATH": str(SOURCES), "CNB_REGISTRY_AUTH": "secret", "LC_ALL": "C"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == ""
    assert done.stderr.count("Permission denied") == 2, done.stderr
