from collections.abc import Generator

import pytest

from ocistow.testing.chromium import Chromium, Tab

from ..conftest import program


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Generator[Chromium]:
    with Chromium(program("chromium"), tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def tab(chromium: Chromium) -> Generator[Tab]:
    with chromium.tab() as tab:
        yield tab
