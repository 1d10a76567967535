import json
import shutil
from pathlib import Path

from ocistow.testing.images import image_layout

from .conftest import Ocistow


def ok(run: Ocistow, *arguments: str) -> str:
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def filled(tmp_path: Path, run: Ocistow) -> None:
    base = image_layout(tmp_path / "base", seed=1, layer_size=50_000)
    image_layout(tmp_path / "app", seed=2, layers=1, base=base, layer_size=20_000)
    for source, name in (("base", "e.x/run:1"), ("app", "e.x/team/app:1"), ("app", "f.x/app:1")):
        ok(run, "add", f"oci:{source}", name)


def test_a_tree_goes_by_registry_and_repository(tmp_path: Path, run: Ocistow) -> None:
    filled(tmp_path, run)
    text = ok(run, "du", "--tree", "--bytes", "--sort", "on-disk")
    lines = [line.split() for line in text.splitlines()]
    assert [line[-7] for line in lines[1:6]] == ["e.x", "team/app/1", "run/1", "f.x/app/1", "total"]
    top = json.loads(ok(run, "du", "--tree", "--json"))["tree"]
    assert [below["path"] for below in top["below"]] == ["e.x", "f.x"]
    one, other = top["below"]
    assert one["onDisk"] + other["exclusive"] == top["onDisk"] == top["exclusive"]
    assert one["shared"] == other["shared"] > 0
    assert one["images"] == 2
    shallow = json.loads(ok(run, "du", "--tree", "--depth", "1", "--json"))["tree"]
    assert all("below" not in branch for branch in shallow["below"])
    assert len(ok(run, "du", "--tree", "--depth", "1").splitlines()) == len(lines) - 2


def test_layers_are_sorted_by_what_they_cost(tmp_path: Path, run: Ocistow) -> None:
    filled(tmp_path, run)
    found = json.loads(ok(run, "du", "--layers", "--images", "2", "--json"))["layers"]
    assert [layer["imageCount"] for layer in found] == [3, 3, 3, 2]
    assert [layer["onDisk"] for layer in found] == sorted(
        (e["onDisk"] for e in found), reverse=True
    )
    assert found[0]["images"] == ["e.x/run:1", "e.x/team/app:1"]
    assert found[3]["createdBy"] == "layer 3"
    assert "layer 3" in ok(run, "du", "--layers", "f.x/app:1")


def test_what_is_recorded_is_shown(tmp_path: Path, run: Ocistow) -> None:
    filled(tmp_path, run)
    before = json.loads(ok(run, "du", "--json"))["total"]
    ok(run, "du", "--record")
    ok(run, "du", "--record", "--json")
    found = json.loads(ok(run, "du", "--since", "1h", "--json"))["runs"]
    assert [one["onDisk"] for one in found] == [before["onDisk"]] * 2
    assert set(found[0]["repositories"]) == {"e.x/run", "e.x/team/app", "f.x/app"}
    assert "██" in ok(run, "du", "--since", "1h")
    assert run("du", "--record", "e.x/run:1").returncode == 2


def test_what_dedupe_would_save_is_told_in_its_words(tmp_path: Path, run: Ocistow) -> None:
    image = image_layout(tmp_path / "cache" / "a", layer_size=50_000)
    shutil.copytree(image.path, tmp_path / "cache" / "deep" / "b")
    found = json.loads(ok(run, "du", "--tree-of", "cache", "--json"))
    blobs = list((image.path / "blobs" / "sha256").iterdir())
    assert found["freedBytes"] == sum(file.stat().st_blocks * 512 for file in blobs)
    assert len(found["layouts"]) == 2
    assert not (tmp_path / "store").exists()
    said = run("dedupe", "--dry-run", "cache")
    assert ok(run, "du", "--tree-of", "cache") == said.stdout
    blobs[0].chmod(0o644)
    blobs[0].write_bytes(b"something else")
    assert (
        run("du", "--tree-of", "cache").returncode == run("dedupe", "--dry-run", "cache").returncode
    )


def test_ways_to_look_exclude_each_other(run: Ocistow) -> None:
    for arguments in (["--tree", "--layers"], ["--depth", "2"], ["--tree-of", ".", "--record"]):
        assert run("du", *arguments).returncode == 2


def test_an_empty_store_is_said_to_be_empty(tmp_path: Path, run: Ocistow) -> None:
    image_layout(tmp_path / "layout")
    ok(run, "add", "oci:layout", "a")
    ok(run, "rm", "a")
    assert json.loads(ok(run, "du", "--json"))["images"] == []
    assert "5 blobs of the pool that no image has" in ok(run, "du")
