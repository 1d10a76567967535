"""The commands that docs/phases.md and the README show."""

import os
import re
import shutil
import site
import subprocess
import tempfile
import tomllib
from collections.abc import Generator
from pathlib import Path

import pytest

from ocistow.lifecycle.invocation.arguments import Phase
from ocistow.testing.registry import Registry

from .workplace import python

ROOT = Path(__file__).parents[3]


needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("umoci") or not Path("/bin/busybox").exists(),
    reason="needs root, umoci and busybox-static",
)


@pytest.fixture
def place() -> Generator[Path]:
    """A directory that every user may enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory(prefix="ocistow-tutorial-") as directory:
        os.chmod(directory, 0o755)
        yield Path(directory)


def commands(page: str, headline: str) -> str:
    """Return what a section of a page shows."""
    _, _, rest = (ROOT / page).read_text().partition(f"\n{headline}\n")
    section = re.split(r"^#{2,3} ", rest, maxsplit=1, flags=re.MULTILINE)[0]
    return "".join(re.findall(r"```sh\n(.*?)```", section, re.DOTALL))


def run(shell: str, directory: Path) -> str:
    """Run commands, all of which must succeed, and return what they said."""
    programs = {phase.program: f"ocistow phase {phase.verb}" for phase in Phase}
    programs["ocistow"] = f"{python()} -m ocistow.cli"  # whom its users may execute
    functions = "".join(f'{name}() {{ {what} "$@"; }}\n' for name, what in programs.items())
    packages = os.pathsep.join([str(ROOT / "src"), *site.getsitepackages()])
    done = subprocess.run(
        ["/bin/sh", "-c", f"set -eu\n{functions}{shell}"],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": packages, "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def report(path: Path) -> dict[str, dict[str, str]]:
    return tomllib.loads(path.read_text())


@pytest.mark.tools
@needs_root
def test_a_build_from_nothing(place: Path) -> None:
    said = run(commands("docs/phases.md", "### A build from nothing"), place)
    assert (place / "oci" / "example.com" / "app" / "1" / "index.json").exists()
    assert report(place / "layers" / "report.toml")["image"]["digest"].startswith("sha256:")
    assert "===> EXPORTING\n" in said


@pytest.mark.tools
@needs_root
def test_a_build_into_a_store_and_out_of_it(place: Path) -> None:
    with Registry() as registry:
        shell = commands("docs/phases.md", "### A build from nothing")
        shell += commands("README.md", "## Build with buildpacks")
        run(shell.replace("localhost:5000", registry.host), place)
        published = report(place / "layers" / "report.toml")
        assert ("PUT", "/v2/app/manifests/1") in [(r.method, r.path) for r in registry.requests]
    digest = published["published"]["digest-in"]
    assert published["published"] == {"digest-in": digest, "digest-out": digest}
    rebased = report(place / "rebased.toml")["image"]
    assert rebased["digest"] != digest
