"""What an image with the phases tells platforms."""

import re
from pathlib import Path

from ocistow.lifecycle.labels import image_labels

DOCKERFILE = Path(__file__).parents[3] / "Dockerfile"


def test_the_dockerfile_has_the_labels() -> None:
    labels = dict(re.findall(r"(io\.buildpacks\.\S+)='(.*)'", DOCKERFILE.read_text()))
    assert labels == image_labels()
