import json
from pathlib import Path

import pytest

from ocistow.testing.images import image_layout

from .conftest import Ocistow


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    image_layout(top / "index.docker.io" / "library" / "app" / "1", seed=1)  # as pack does
    image_layout(top / "team" / "tool", seed=2, tag="1.0")  # as zot does
    image_layout(top / "team" / "tool", seed=3, tag="2.0")
    image_layout(top / "cache", seed=4, tag="ghcr.io/team/base:3")  # as who says the whole name
    return top


NAMES = {
    "index.docker.io/library/app:1",
    "index.docker.io/team/tool:1.0",
    "index.docker.io/team/tool:2.0",
    "ghcr.io/team/base:3",
}


def listed(run: Ocistow) -> set[str]:
    return {image["name"] for image in json.loads(run("ls", "--json").stdout)["images"]}


def test_a_dry_run_prints_names(run: Ocistow, tree: Path, tmp_path: Path) -> None:
    done = run("add", "--tree", "tree", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert {text.split()[-1] for text in done.stdout.splitlines()} == NAMES
    assert not (tmp_path / "store").exists()


def test_a_directory_without_layouts_is_said_to_have_none(run: Ocistow, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run("add", "--tree", "empty").stderr == "there is no image layout below empty\n"


def test_every_image_is_added(run: Ocistow, tree: Path) -> None:
    done = run("add", "--tree", "tree")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 4
    assert listed(run) == NAMES


def test_one_that_cannot_be_does_not_stop_the_others(run: Ocistow, tree: Path) -> None:
    image = image_layout(tree / "aaa", seed=5, tag="bad")
    image.blob(image.config).write_bytes(b"bad")
    (tree / "broken").mkdir()
    (tree / "broken" / "blobs").mkdir()
    (tree / "broken" / "index.json").write_text("{")
    nameless = image_layout(tree / "nameless", seed=6)
    index = json.loads((nameless.path / "index.json").read_bytes())
    del index["manifests"][0]["annotations"]
    (nameless.path / "index.json").write_text(json.dumps(index))
    done = run("add", "--tree", "tree", "--json")
    assert done.returncode == 65
    assert listed(run) == NAMES
    images = json.loads(done.stdout)["images"]
    assert sum("error" in image for image in images) == 3
    assert len(done.stderr.splitlines()) == 3


@pytest.mark.parametrize(
    "arguments",
    [(), ("--tree", "tree", "oci:x"), ("--dry-run", "oci:x"), ("--tree", "x", "--lazy")],
)
def test_wrong_usage(run: Ocistow, arguments: tuple[str, ...]) -> None:
    assert run("add", *arguments).returncode == 2
