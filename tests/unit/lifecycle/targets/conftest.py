from collections.abc import Generator
from pathlib import Path

import pytest

from ocistow.testing.images import GeneratedImage, image_layout
from ocistow.testing.registry import Registry


@pytest.fixture
def registry() -> Generator[Registry]:
    with Registry() as registry:
        yield registry


@pytest.fixture
def image(tmp_path: Path) -> GeneratedImage:
    return image_layout(tmp_path / "layout", layers=2)
