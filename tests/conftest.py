"""Fixtures and checks shared by every test."""

import os
import shutil
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How fast the machine is says nothing about the code. The same test tries the same examples, so
# that no change is refused for what an older one brought; OCISTOW_FUZZ looks for new ones.
settings.register_profile(
    "ocistow",
    deadline=None,
    derandomize="OCISTOW_FUZZ" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("ocistow")

ROOT_FOLDERS = {
    "audit",
    "bench",
    "cli",
    "fusefs",
    "lifecycle",
    "oci",
    "publish",
    "store",
    "testing",
}


@pytest.fixture(scope="session", autouse=True)
def without_credentials(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """Let no test find what the user who runs it has for registries."""
    with pytest.MonkeyPatch.context() as patch:
        for name in (
            "CNB_INSECURE_REGISTRIES",
            "CNB_REGISTRY_AUTH",
            "CONTAINERS_REGISTRIES_CONF",
            "DOCKER_AUTH_CONFIG",
            "REGISTRY_AUTH_FILE",
        ):
            patch.delenv(name, raising=False)
        patch.setenv("DOCKER_CONFIG", str(tmp_path_factory.mktemp("docker")))
        yield


@pytest.fixture(scope="session", autouse=True)
def usual_umask() -> Generator[None]:
    """Give files the modes that tests expect, also to a user who lets nobody read theirs."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture(scope="session", autouse=True)
def without_strays() -> Generator[None]:
    """Fail when a root folder was imported by its bare name: that makes every class twice."""
    yield
    strays = ROOT_FOLDERS & sys.modules.keys()
    assert not strays, f"imported without the ocistow. prefix: {sorted(strays)}"


@pytest.fixture(scope="session")
def fuse() -> None:
    """Skip where nothing can be mounted."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("/dev/fuse cannot be opened")
    if shutil.which("fusermount3") is None:
        pytest.skip("fusermount3 is not installed")


@pytest.fixture
def file_system(tmp_path: Path) -> Generator[Callable[[str], Path]]:
    """Mount new file systems: `file_system("xfs")` is an empty directory of one.

    They are `KINDS` of `ocistow.testing.filesystems`. Each takes some milliseconds.
    """
    from ocistow.testing.filesystems import Unavailable, mounted  # not for tests of this file

    with ExitStack() as stack:

        def mount(kind: str) -> Path:
            try:
                return stack.enter_context(mounted(kind, tmp_path / f"{kind}-file-system"))
            except Unavailable as reason:
                pytest.skip(str(reason))

        yield mount


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that is skipped although OCISTOW_NO_SKIP=1 says that nothing is missing."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Fail a whole module that skips itself, likewise."""
    report = yield
    if report.skipped:
        refuse_skip(report)
    return report


def refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure that keeps the reason."""
    if os.environ.get("OCISTOW_NO_SKIP") == "1":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"OCISTOW_NO_SKIP=1, but: {reason}"
