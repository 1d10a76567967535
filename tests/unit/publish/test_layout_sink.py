import fcntl
import json
import os
from pathlib import Path

import pytest

from ocistow.oci.descriptor import REF_NAME
from ocistow.oci.digest import Digest
from ocistow.oci.errors import Busy, DigestMismatch, InvalidContent, NotFound
from ocistow.publish.copy import Copied, copy
from ocistow.publish.layout import LayoutSource
from ocistow.publish.layout_sink import LayoutSink
from ocistow.publish.transports import open_sink
from ocistow.testing.images import GeneratedImage, image_layout, index_layout, sparse_layout


def publish(layout: Path, destination: str) -> Copied:
    with open_sink(f"oci:{destination}") as sink:
        return copy(LayoutSource(layout), sink)


def blob(layout: Path, digest: Digest) -> Path:
    return layout / "blobs" / digest.algorithm / digest.encoded


def entries(layout: Path) -> dict[str, str]:
    document = json.loads((layout / "index.json").read_text())
    return {e.get("annotations", {}).get(REF_NAME): e["digest"] for e in document["manifests"]}


def test_a_layout_is_made(tmp_path: Path, image: GeneratedImage) -> None:
    made = tmp_path / "deep" / "made"
    copied = publish(image.path, f"{made}:v1")
    assert (copied.sent, copied.present, copied.losses) == (5, 0, ())
    assert entries(made) == {"v1": str(image.manifest)}
    assert json.loads((made / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    for digest in (image.manifest, image.config, *image.layers):
        assert Digest.of(blob(made, digest).read_bytes()) == digest
    assert blob(made, image.config).stat().st_nlink == 1
    assert (
        copy(LayoutSource(made, "v1"), LayoutSink(tmp_path / "again")).root.digest == image.manifest
    )


def test_other_images_and_members_stay(tmp_path: Path, image: GeneratedImage) -> None:
    made = tmp_path / "made"
    other = image_layout(made, seed=7, tag="other")
    document = json.loads((made / "index.json").read_text())
    (made / "index.json").write_text(json.dumps({**document, "annotations": {"a": "b"}}))
    publish(image.path, f"{made}:v1")
    assert entries(made) == {"other": str(other.manifest), "v1": str(image.manifest)}
    assert json.loads((made / "index.json").read_text())["annotations"] == {"a": "b"}

    newer = image_layout(tmp_path / "newer", seed=8)
    publish(newer.path, f"{made}:v1")
    assert entries(made) == {"other": str(other.manifest), "v1": str(newer.manifest)}


def test_the_same_image_without_a_name_is_there_once(tmp_path: Path, image: GeneratedImage) -> None:
    index = json.loads((image.path / "index.json").read_text())
    del index["manifests"][0]["annotations"]
    (image.path / "index.json").write_text(json.dumps(index))
    made = tmp_path / "made"
    publish(image_layout(tmp_path / "other", seed=7).path, f"{made}")
    for _ in range(2):
        publish(image.path, f"{made}")
    assert len(json.loads((made / "index.json").read_text())["manifests"]) == 2


def test_a_name_in_the_layout_may_have_several_parts(tmp_path: Path, image: GeneratedImage) -> None:
    publish(image.path, f"{tmp_path / 'made'}:example.org/app:1")
    assert entries(tmp_path / "made") == {"example.org/app:1": str(image.manifest)}
    with pytest.raises(InvalidContent, match="no name of an image"):
        publish(image.path, f"{tmp_path / 'made'}:@1")


def test_what_is_there_is_not_read_from_the_source(tmp_path: Path, image: GeneratedImage) -> None:
    made = tmp_path / "made"
    publish(image.path, f"{made}")
    before = {path: path.stat().st_ino for path in made.rglob("blobs/*/*")}
    for digest in image.layers:
        image.blob(digest).unlink()
    copied = publish(image.path, f"{made}")
    assert (copied.sent, copied.present) == (0, 5)
    assert before == {path: path.stat().st_ino for path in made.rglob("blobs/*/*")}


@pytest.mark.parametrize("damage", ["bytes", "size", "link"])
def test_a_damaged_blob_is_replaced(tmp_path: Path, image: GeneratedImage, damage: str) -> None:
    made, digest = tmp_path / "made", image.layers[1]
    publish(image.path, f"{made}")
    damaged = blob(made, digest)
    victim = tmp_path / "victim"
    victim.write_bytes(bytes(damaged.stat().st_size + (damage == "size")))
    damaged.unlink()
    if damage == "link":
        damaged.symlink_to(victim)
    else:
        os.link(victim, damaged)
    assert publish(image.path, f"{made}").sent == 1
    assert Digest.of(damaged.read_bytes()) == digest
    assert not damaged.is_symlink()
    assert set(victim.read_bytes()) == {0}


def test_a_damaged_source_changes_no_name(tmp_path: Path, image: GeneratedImage) -> None:
    made = tmp_path / "made"
    old = image_layout(made, seed=7, tag="latest")
    source = image.blob(image.layers[2])
    source.write_bytes(bytes(source.stat().st_size))
    with pytest.raises(DigestMismatch):
        publish(image.path, f"{made}")
    assert entries(made) == {"latest": str(old.manifest)}
    assert not blob(made, image.layers[2]).exists()
    assert not [name for name in os.listdir(made / "blobs/sha256") if name.startswith(".")]


def test_a_sparse_image_is_no_whole_layout(tmp_path: Path) -> None:
    image = sparse_layout(tmp_path / "sparse")
    with pytest.raises(NotFound, match="not found"):
        publish(image.path, f"{tmp_path / 'made'}")
    assert not (tmp_path / "made" / "index.json").exists()


def test_an_index_goes_whole(tmp_path: Path) -> None:
    index = index_layout(tmp_path / "index")
    assert publish(index.path, f"{tmp_path / 'made'}").root.digest == index.index


def test_what_is_no_layout_stays_untouched(tmp_path: Path, image: GeneratedImage) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "letter").touch()
    with pytest.raises(InvalidContent, match="is no image layout and not empty: it holds 'letter'"):
        publish(image.path, f"{home}")
    assert os.listdir(home) == ["letter"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("oci-layout", '{"imageLayoutVersion":"2.0.0"}'),
        ("oci-layout", "{}"),
        ("index.json", "[]"),
        ("index.json", '{"schemaVersion":2,"manifests":[{}]}'),
    ],
)
def test_other_layouts_are_refused_before_anything_changes(
    tmp_path: Path, image: GeneratedImage, name: str, content: str
) -> None:
    made = tmp_path / "made"
    made.mkdir()
    (made / name).write_text(content)
    with pytest.raises(InvalidContent):
        publish(image.path, f"{made}")
    assert not list(made.rglob("blobs/*/*"))
    assert (made / name).read_text() == content


def test_writers_wait_for_each_other(
    tmp_path: Path, image: GeneratedImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ocistow.publish.layout_sink.TIMEOUT", 0.0)
    made = tmp_path / "made"
    made.mkdir()
    held = os.open(made, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(Busy, match="another process"):
        publish(image.path, f"{made}")
    os.close(held)
    publish(image.path, f"{made}")


@pytest.mark.parametrize("name", ["blobs", "blobs/sha256"])
def test_no_link_leads_out_of_a_layout(tmp_path: Path, image: GeneratedImage, name: str) -> None:
    made, outside = tmp_path / "made", tmp_path / "outside"
    (made / name).parent.mkdir(parents=True)
    outside.mkdir()
    (made / name).symlink_to(outside)
    (made / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    with pytest.raises(OSError, match="Not a directory"):
        publish(image.path, f"{made}")
    assert os.listdir(outside) == []
