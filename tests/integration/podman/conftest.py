"""Podman with a storage of its own, chosen by its environment as users do."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from ..conftest import program

CONFIG = """
[storage]
driver = "vfs"
graphroot = "{directory}/root"
runroot = "{directory}/run"
"""


@dataclass(frozen=True, slots=True)
class Podman:
    """The storage that CONTAINERS_STORAGE_CONF names."""

    def run(self, *arguments: str) -> str:
        """Run podman and return what it prints."""
        command = [program("podman"), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def digests(self) -> dict[str, str]:
        """Return the manifest digests of all images by their names."""
        lines = self.run("images", "--format", "{{.Repository}}:{{.Tag}} {{.Digest}}").splitlines()
        return {line.split()[0]: line.split()[1] for line in lines}


@pytest.fixture
def podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Podman:
    program("podman")
    (tmp_path / "storage.conf").write_text(CONFIG.format(directory=tmp_path / "podman"))
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(tmp_path / "storage.conf"))
    return Podman()
