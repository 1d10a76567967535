"""Fixtures and checks shared by every test."""

import sys

import pytest

ROOT_FOLDERS = {"oci", "store", "fusefs", "publish", "cli", "testing"}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail when a root folder was imported by its bare name: that makes every class twice."""
    if strays := ROOT_FOLDERS & sys.modules.keys():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        sys.stderr.write(f"imported without the ocistow. prefix: {sorted(strays)}\n")
