import json
import subprocess
from pathlib import Path

from ocistow.testing.images import artifact_layout, image_layout

from .conftest import Ocistow


def ok(done: "subprocess.CompletedProcess[str]") -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_reindex_says_what_stays(tmp_path: Path, run: Ocistow) -> None:
    image_layout(tmp_path / "layout")
    ok(run("add", "oci:layout", "a"))
    lines = ok(run("reindex")).splitlines()
    assert lines[0].split() == ["TABLE", "KEPT", "DROPPED"]
    assert lines[1].split() == ["layers", "0", "0"]


def test_reindex_learns_layers_once(tmp_path: Path, run: Ocistow) -> None:
    image_layout(tmp_path / "layout", layers=3)
    artifact_layout(tmp_path / "layout", [b"no layer"], tag="artifact")
    ok(run("add", "oci:layout:latest", "a"))
    ok(run("add", "oci:layout:artifact", "b"))
    assert "learnt what 3 layers inflate to" in ok(run("reindex", "--layers"))
    document = json.loads(ok(run("reindex", "--layers", "--json")))
    assert document["damage"] is None
    assert document["layersLearnt"] == 0
    assert document["tables"]["layers"] == {"kept": 3, "dropped": 0}


def test_reindex_makes_a_damaged_database_anew(tmp_path: Path, run: Ocistow) -> None:
    image_layout(tmp_path / "layout")
    ok(run("add", "oci:layout", "a"))
    index = tmp_path / "store" / "index.sqlite"
    index.write_bytes(b"nothing " * 1000)
    assert "damaged, and is made anew: file is not a database" in ok(run("reindex"))
    assert json.loads(ok(run("reindex", "--json")))["damage"] is None
