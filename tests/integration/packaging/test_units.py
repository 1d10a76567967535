"""What systemd says of our units, and what they must not say."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ..conftest import program

UNITS = Path(__file__).parents[3] / "packaging" / "lib" / "systemd" / "system"
INSTANCES = (
    "ocistow@oci.service",
    "ocistow-gc@var-lib-ocistow.service",
    "ocistow-gc@var-lib-ocistow.timer",
)

# systemd.exec(5): each gives a service a mount namespace, in which what it mounts stays
PRIVATE = (
    *("BindPaths", "InaccessiblePaths", "MountFlags", "PrivateDevices", "PrivateMounts"),
    *("PrivateTmp", "PrivateUsers", "ProtectClock", "ProtectControlGroups", "ProtectHome"),
    *("ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables", "ProtectProc"),
    *("ProtectSystem", "ReadOnlyPaths", "ReadWritePaths", "RootDirectory", "TemporaryFileSystem"),
)


def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    for instance in INSTANCES:
        template = f"{instance.partition('@')[0]}@{Path(instance).suffix}"
        text = (UNITS / template).read_text().replace("=ocistow ", f"={sys.executable} ")
        (tmp_path / instance).write_text(text)
    units = [str(tmp_path / instance) for instance in INSTANCES]
    done = subprocess.run(
        [program("systemd-analyze"), "verify", "--man=no", *units],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_unit_is_looked_at() -> None:
    templates = {f"{name.partition('@')[0]}@{Path(name).suffix}" for name in INSTANCES}
    assert {unit.name for unit in UNITS.iterdir()} == templates


@pytest.mark.parametrize("setting", PRIVATE)
def test_a_mount_is_seen_by_all(setting: str) -> None:
    lines = (UNITS / "ocistow@.service").read_text().splitlines()
    assert not [line for line in lines if line.startswith(f"{setting}=")]


def test_systemd_tmpfiles_understands_what_is_made(tmp_path: Path) -> None:
    found = shutil.which("systemd-tmpfiles")
    if found is None:
        pytest.skip("systemd-tmpfiles is not installed")
    config = UNITS.parents[1] / "tmpfiles.d" / "ocistow.conf"
    command = [found, "--create", f"--root={tmp_path}", str(config)]
    subprocess.run(command, check=True, timeout=60)
    assert (tmp_path / "var" / "lib" / "ocistow").is_dir()
    assert (tmp_path / "oci").is_dir()
