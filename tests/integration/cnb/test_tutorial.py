"""The commands that docs/phases.md shows."""

import os
import re
import shutil
import site
import subprocess
import tempfile
import tomllib
from pathlib import Path

import pytest

from .workplace import python

ROOT = Path(__file__).parents[3]


@pytest.mark.tools
def test_a_build_from_nothing() -> None:
    if os.geteuid() != 0 or not shutil.which("umoci") or not Path("/bin/busybox").exists():
        pytest.skip("needs root, umoci and busybox-static")
    text = (ROOT / "docs" / "phases.md").read_text()
    found = re.search(r"### A build from nothing\n.*?```sh\n(.*?)```", text, re.DOTALL)
    assert found is not None
    shell = f'set -eu\nocistow() {{ {python()} -m ocistow.cli "$@"; }}\n{found[1]}'
    packages = os.pathsep.join([str(ROOT / "src"), *site.getsitepackages()])
    with tempfile.TemporaryDirectory(prefix="ocistow-tutorial-") as directory:
        os.chmod(directory, 0o755)
        done = subprocess.run(
            ["/bin/sh", "-c", shell],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": packages},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout
        report = tomllib.loads(Path(directory, "layers", "report.toml").read_text())
        assert Path(directory, "oci", "example.com", "app", "1", "index.json").exists()
    assert report["image"]["digest"].startswith("sha256:")
    assert "===> EXPORTING\n" in re.sub("\x1b[^m]*m", "", done.stdout)
