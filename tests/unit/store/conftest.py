from collections.abc import Iterator
from pathlib import Path

import pytest

from ocistow.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "store") as created:
        yield created
