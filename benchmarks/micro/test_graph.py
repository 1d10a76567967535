"""How fast is an image walked, next to parsing the same documents without a check?"""

import json
from collections.abc import Callable, Mapping

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from ocistow.oci.graph import walk
from ocistow.testing.minimal import MinimalImage, minimal_image, minimal_index

PLATFORMS, LAYERS = 8, 20
SHAPES = {
    f"an image of {LAYERS} layers": 1,
    f"an index of {PLATFORMS} images, {LAYERS} layers each": PLATFORMS,
}


def made(platforms: int) -> MinimalImage:
    images = [
        minimal_image(f"platform {number}", [f"{number}.{layer}" for layer in range(LAYERS)])
        for number in range(platforms)
    ]
    return minimal_index(*images) if platforms > 1 else images[0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("way", ["ocistow", "json.loads"])
def test_walk(benchmark: BenchmarkFixture, shape: str, way: str) -> None:
    benchmark.group = f"walk {shape}"
    image = made(SHAPES[shape])

    def parsed() -> int:
        count, left = 1, [str(image.root.digest)]
        documents = {str(digest): content for digest, content in image.blobs.items()}
        while left:
            document = json.loads(documents[left.pop()])
            if below := document.get("manifests"):
                left += [child["digest"] for child in below]
                count += len(below)
            else:
                count += 1 + len(document["layers"])
        return count

    ways: Mapping[str, Callable[[], int]] = {
        "ocistow": lambda: sum(1 for _ in walk(image.root, image.load)),
        "json.loads": parsed,
    }
    assert benchmark(ways[way]) == len(image.blobs)
