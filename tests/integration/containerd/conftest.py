"""A containerd with directories and a socket of its own, and an empty namespace for each test."""

import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ocistow.publish.access import Access

from ..conftest import mounts_below, program, running

CONFIG = """
version = 2
root = "{root}"
state = "{directory}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{directory}/socket"
"""


@dataclass(frozen=True, slots=True)
class Containerd:
    """A namespace of a containerd."""

    address: str
    namespace: str

    @property
    def access(self) -> Access:
        """What ocistow is told of it."""
        return Access(containerd=self.address, namespace=self.namespace)

    def ctr(self, *arguments: str) -> str:
        """Run the client and return what it prints."""
        command = [program("ctr"), "-a", self.address, "-n", self.namespace, *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
        return done.stdout.strip()

    def images(self) -> dict[str, str]:
        """Return the digests of all images by their names."""
        lines = [line.split() for line in self.ctr("images", "ls").splitlines()[1:]]
        return {fields[0]: fields[2] for fields in lines}

    def is_ready(self, name: str) -> bool:
        """Tell whether containerd calls an image complete and unpacked."""
        table = self.ctr("images", "check", f'name=="{name}"').splitlines()
        return any(" complete " in line and line.endswith("true") for line in table[1:])

    def content(self) -> set[str]:
        """Return the digests of all content."""
        return set(self.ctr("content", "ls", "--quiet").split())


@contextmanager
def serving(directory: Path, root: Path) -> Generator[str]:
    """Run a containerd for the block, with its files below `root`; yield its address."""
    if os.geteuid() != 0:
        pytest.skip("containerd needs root")
    for needed in ("containerd", "ctr", "runc"):
        program(needed)
    directory.mkdir(exist_ok=True)
    (directory / "config.toml").write_text(CONFIG.format(directory=directory, root=root))
    command = [program("containerd"), "--config", str(directory / "config.toml")]
    try:
        with running(command) as log:
            log.wait_for(rf"serving\.\.\..* address={re.escape(str(directory))}/socket\s")
            yield f"{directory}/socket"
    finally:
        for mount in mounts_below(directory):
            subprocess.run(["umount", "--lazy", mount], check=True)


@pytest.fixture(scope="session")
def containerd_address(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    directory = tmp_path_factory.mktemp("containerd")
    try:
        with serving(directory, directory / "root") as address:
            yield address
    finally:
        shutil.rmtree(directory / "root", ignore_errors=True)


@pytest.fixture
def containerd(containerd_address: str) -> Containerd:
    return Containerd(containerd_address, f"test-{uuid.uuid4().hex}")
