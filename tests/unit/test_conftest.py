"""The checks in tests/conftest.py fail the sessions that they are meant to fail."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"

PASSES = "def test_passes(): pass"
SKIPPED_BY_MARK = "import pytest\n@pytest.mark.skip(reason='x')\ndef test_skipped(): pass"
SKIPPED_INSIDE = "import pytest\ndef test_skipped(): pytest.skip('x')"
SKIPPED_MODULE = "import pytest\npytest.importorskip('no_such_module')\ndef test_skipped(): pass"
EXPECTED_FAILURE = "import pytest\n@pytest.mark.xfail\ndef test_fails(): assert False"
STRAY_IMPORT = "def test_imports(): import oci"


@pytest.fixture(params=[0, 1], ids=["alone", "worker"])
def workers(request: pytest.FixtureRequest) -> int:
    """How many processes run the tests for the session; it runs them itself if there are none."""
    return int(request.param)


def session(directory: Path, source: str, *, no_skip: str, workers: int) -> int:
    """Run one test file under our conftest.py and return pytest's exit status."""
    shutil.copy(CONFTEST, directory)
    (directory / "test_sample.py").write_text(f"{PASSES}\n{source}\n")
    (directory / "oci.py").touch()
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-p",
        "xdist",
        f"-n{workers}",
    ]
    env = os.environ | {"OCISTOW_NO_SKIP": no_skip, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(
        command, cwd=directory, env=env, check=False, capture_output=True, timeout=60
    ).returncode


@pytest.mark.parametrize(
    "source", [SKIPPED_BY_MARK, SKIPPED_INSIDE, SKIPPED_MODULE], ids=["mark", "inside", "module"]
)
def test_a_skip_fails_only_on_request(tmp_path: Path, source: str, workers: int) -> None:
    assert session(tmp_path, source, no_skip="", workers=workers) in {
        pytest.ExitCode.OK,
        pytest.ExitCode.NO_TESTS_COLLECTED,  # the whole module is skipped
    }
    assert session(tmp_path, source, no_skip="1", workers=workers) in {
        pytest.ExitCode.TESTS_FAILED,
        pytest.ExitCode.INTERRUPTED,  # while collecting
    }


@pytest.mark.parametrize("source", [PASSES, EXPECTED_FAILURE], ids=["pass", "xfail"])
def test_what_is_not_a_skip_passes(tmp_path: Path, source: str, workers: int) -> None:
    assert session(tmp_path, source, no_skip="1", workers=workers) == pytest.ExitCode.OK


def test_a_stray_import_fails(tmp_path: Path, workers: int) -> None:
    assert (
        session(tmp_path, STRAY_IMPORT, no_skip="", workers=workers) == pytest.ExitCode.TESTS_FAILED
    )
