"""Commands run as another user find code that only root can reach."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ocistow

ASKING = """
import sys
from ocistow.testing.strangers import run_as_stranger
done = run_as_stranger(sys.executable, "-c", "import ocistow, os; print(ocistow, os.getuid())")
print(done.stdout, end="")
sys.exit(done.stderr or done.returncode)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("mode", ["go+rX", "go-rwx"])
def test_a_closed_clone_can_be_read(tmp_path: Path, mode: str) -> None:
    tmp_path.chmod(0o700)
    packages = tmp_path / "clone" / "src"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(ocistow.__file__).parent, packages / "ocistow", ignore=ignored)
    subprocess.run(["chmod", "-R", mode, tmp_path / "clone"], check=True)
    done = subprocess.run(
        [sys.executable, "-c", ASKING],
        env={**os.environ, "PYTHONPATH": str(packages)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.stdout == f"<module 'ocistow' from '{packages / 'ocistow/__init__.py'}'> 65534\n"
