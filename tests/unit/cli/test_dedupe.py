import json
import shutil
from pathlib import Path

import pytest

from ocistow.cli.exits import FINDINGS
from ocistow.testing.images import image_layout

from .conftest import Ocistow


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    image_layout(tmp_path / "tree" / "example.com" / "app" / "1", layer_size=40_000)
    shutil.copytree(tmp_path / "tree/example.com/app/1", tmp_path / "tree/example.com/app/2")
    return tmp_path / "tree"


HOW = ("--mode", "hardlink")  # also where the file system has reflinks


def test_a_dry_run_makes_nothing_and_a_real_one_does_what_it_says(
    run: Ocistow, tree: Path, tmp_path: Path
) -> None:
    dry = run("dedupe", "--dry-run", *HOW, "--bytes", "tree")
    assert (dry.returncode, dry.stderr) == (0, "")
    assert not (tmp_path / "store").exists()
    header, *rows, total, last = dry.stdout.splitlines()
    assert header.split() == ["LAYOUT", "BLOBS", "SHARED", "TO", "SHARE", "FREED"]
    assert [row.split()[1:4] for row in rows] == [["5", "0", "5"]] * 2
    freed = int(total.split()[-1])
    assert freed >= 3 * 40_000
    assert last == (
        f"10 hard links would be made in 2 layouts, 5 blobs would be taken in, "
        f"{freed} would be freed"
    )
    real = run("dedupe", *HOW, "--bytes", "tree")
    said, undo = real.stdout.splitlines()
    assert said == f"10 hard links made in 2 layouts, 5 blobs taken in, {freed} freed"
    assert undo.startswith(f"to undo: ocistow dedupe --undo {tmp_path}/store/dedupe/")
    again = run("dedupe", "--dry-run", *HOW, "tree").stdout.splitlines()
    assert again[-2].split() == ["total", "10", "10", "0", "0", "B"]
    assert again[-1].endswith("0 blobs would be taken in, 0 B would be freed")


def test_json(run: Ocistow, tree: Path) -> None:
    dry = json.loads(run("dedupe", "--dry-run", "--json", *HOW, "tree").stdout)
    real = json.loads(run("dedupe", "--json", *HOW, "tree").stdout)
    assert dry["schemaVersion"] == 1
    assert (dry["dryRun"], real["dryRun"]) == (True, False)
    for name in ("links", "takenIn", "freedBytes", "layouts", "planned", "exposed"):
        assert dry[name] == real[name]
    assert (dry["journal"], dry["left"], real["left"]) == (None, [], [])
    undone = json.loads(run("dedupe", "--undo", "--json", real["journal"]).stdout)
    assert undone["restored"] == 10
    assert undone["journal"].endswith(".undone")


def test_wrong_content_is_a_finding(run: Ocistow, tree: Path) -> None:
    bad = next((tree / "example.com/app/1/blobs/sha256").iterdir())
    bad.write_bytes(b"bad")
    done = run("dedupe", *HOW, "tree")
    assert done.returncode == FINDINGS
    assert f"{bad}: content has digest" in done.stderr
    assert bad.read_bytes() == b"bad"


def test_what_was_skipped_is_said_with_an_end(run: Ocistow, tree: Path) -> None:
    directory = tree / "example.com/app/1/blobs/sha256"
    for number in range(30):
        (directory / f"{number:064x}").symlink_to("elsewhere")
    done = run("dedupe", *HOW, "tree")
    assert done.returncode == 0
    said = [text for text in done.stderr.splitlines() if "readable" not in text]
    assert len(said) == 21
    assert said[-1] == "left alone: 10 more (--json has all)"


def test_undo_goes_back_run_by_run(run: Ocistow, tree: Path) -> None:
    first = run("dedupe", *HOW, "tree/example.com/app/1").stdout
    assert "5 blobs taken in" in first
    assert "5 hard links made" in run("dedupe", *HOW, "tree").stdout
    assert run("dedupe", "--undo").stdout.startswith("5 files restored, ")
    assert run("dedupe", "--undo").stdout.startswith("5 files restored, ")
    assert {path.stat().st_nlink for path in tree.rglob("blobs/sha256/*")} == {1}
    none = run("dedupe", "--undo")
    assert (none.returncode, none.stdout) == (66, "")


def test_files_that_only_their_owner_may_read(run: Ocistow, tree: Path) -> None:
    for path in tree.rglob("blobs/sha256/*"):
        path.chmod(0o600)
    said = run("dedupe", "--dry-run", *HOW, "tree").stderr
    assert said.startswith("10 files would be readable for all who reach the directory")


@pytest.mark.parametrize(
    "arguments", [(), ("--undo", "a", "b"), ("--undo", "--dry-run"), ("--mode", "symlink", "x")]
)
def test_wrong_usage(run: Ocistow, arguments: tuple[str, ...]) -> None:
    assert run("dedupe", *arguments).returncode == 2


def test_other_file_systems_are_explained_in_one_line(run: Ocistow) -> None:
    done = run("dedupe", "/dev/shm")
    assert done.returncode == 74
    (said,) = done.stderr.splitlines()
    assert said.startswith("ocistow: /dev/shm: on another file system than")
    assert "--store" in said


def test_progress_for_programs(run: Ocistow, tree: Path) -> None:
    lines = run("dedupe", *HOW, "--progress", "json", "tree").stderr.splitlines()
    told = [json.loads(text) for text in lines if text.startswith("{")]
    assert {one["name"] for one in told} == {"verifying", "sharing"}
    assert all(one["done"] <= one["total"] for one in told)
    assert [one for one in told if one["name"] == "sharing"][-1]["done"] == told[-1]["total"]
