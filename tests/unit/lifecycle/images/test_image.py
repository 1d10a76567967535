import json
from dataclasses import replace
from pathlib import Path

import pytest

from ocistow.lifecycle.images.image import Layer, open_image
from ocistow.oci.errors import InvalidContent
from ocistow.publish.layout import LayoutSource
from ocistow.testing.images import image_layout, index_layout


def test_an_image_knows_its_layers(tmp_path: Path) -> None:
    made = image_layout(tmp_path)
    source = LayoutSource(tmp_path)
    root = source.resolve()
    image = open_image("name", f"name@{root.digest}", source, root)
    assert [layer.diff_id for layer in image.layers] == list(made.diff_ids)
    assert [layer.blob.digest for layer in image.layers] == list(made.layers)
    assert image.top_layer == made.diff_ids[-1]
    assert image.layer(made.diff_ids[1]) == Layer(made.diff_ids[1], image.layers[1].blob)
    assert image.layer(made.manifest) is None
    assert (image.name, image.root, image.source) == ("name", root, source)


def test_no_layer_is_read_to_know_an_image(tmp_path: Path) -> None:
    made = image_layout(tmp_path)
    for layer in made.layers:
        made.blob(layer).unlink()
    source = LayoutSource(tmp_path)
    assert len(open_image("name", "", source, source.resolve()).layers) == 3


def test_an_index_is_no_image(tmp_path: Path) -> None:
    index_layout(tmp_path)
    source = LayoutSource(tmp_path)
    with pytest.raises(InvalidContent, match="not an image for one platform"):
        open_image("name", "", source, source.resolve())


def test_a_config_of_other_layers_is_refused(tmp_path: Path) -> None:
    one, two = image_layout(tmp_path, tag="a"), image_layout(tmp_path, tag="b", layers=2, seed=1)
    document = json.loads(one.blob(one.manifest).read_bytes())
    document["config"] = json.loads(two.blob(two.manifest).read_bytes())["config"]
    source = LayoutSource(tmp_path, "a")
    root = source.resolve()
    raw = json.dumps(document).encode()
    digest = type(root.digest).of(raw)
    one.blob(digest).write_bytes(raw)
    with pytest.raises(InvalidContent, match="has 2 diff_ids, the manifest has 3 layers"):
        open_image("name", "", source, replace(root, digest=digest, size=len(raw)))
