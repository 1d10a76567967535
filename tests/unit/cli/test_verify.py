import json
import os
from pathlib import Path

import pytest

from ocistow.oci.digest import Digest
from ocistow.oci.reference import Reference
from ocistow.store.store import Store
from ocistow.testing.disk import QuickDisk
from ocistow.testing.invariants import violations
from ocistow.testing.minimal import minimal_image

from .conftest import Ocistow

A = minimal_image("a")
B = minimal_image("b", ["two", "three"])
LAYER, OTHER, CONFIG, MANIFEST = A.blobs


@pytest.fixture
def store(tmp_path: Path) -> Path:
    for name in ("store", "spare"):
        with Store.create(tmp_path / name, QuickDisk()) as store:
            for tag, image in (("1", A), ("2", A), ("3", B)):
                image.add_to(store.blobs)
                store.put(Reference.parse(f"example.com/app:{tag}"), image.root)
    return tmp_path / "store"


def rot(store: Path) -> None:
    file = store / "blobs" / "sha256" / LAYER.encoded
    with file.open("r+b") as stream:
        stream.write(b"X")


def test_a_good_store(run: Ocistow, store: Path) -> None:
    done = run("verify")
    assert (done.returncode, done.stderr) == (0, "")
    assert "3 images checked, nothing found" in done.stdout


def test_rot_is_told_in_a_table_and_taken_away(run: Ocistow, store: Path) -> None:
    rot(store)
    looked = run("verify", "--dry-run")
    assert looked.returncode == 4
    assert (store / "blobs" / "sha256" / LAYER.encoded).exists()
    done = run("verify")
    assert done.returncode == 4
    header, row, *_ = done.stdout.splitlines()
    assert header.split() == ["SEVERITY", "FOUND", "WHERE", "WHAT"]
    assert row.startswith("error     bad-blob  blobs/sha256/")
    assert row.endswith("; quarantined")
    assert f"not repaired: {LAYER} (no place to ask: --repair)" in done.stdout
    assert not list(store.rglob(f"blobs/sha256/{LAYER.encoded}"))
    assert f"in {store / 'quarantine'}: 1 file" in done.stdout


@pytest.mark.parametrize("word", ["spare", "oci:spare/layouts/example.com/app/1"])
def test_rot_is_repaired_once_for_all(run: Ocistow, store: Path, word: str) -> None:
    rot(store)
    done = run("verify", "--repair", word)
    assert done.returncode == 4
    assert f"repaired {LAYER} from {word}, for 2 images" in done.stdout
    assert violations(store) == []
    assert run("verify").returncode == 0


@pytest.mark.parametrize("lost", [LAYER, MANIFEST])
def test_an_archive_gives_back_what_rotted(run: Ocistow, store: Path, lost: Digest) -> None:
    word = f"oci-archive:{store.parent / 'saved.tar'}"
    assert run("publish", "example.com/app:1", word).returncode == 0
    with (store / "blobs" / "sha256" / lost.encoded).open("r+b") as stream:
        stream.write(b"!")
    done = run("verify", "--repair", word)
    assert done.returncode == 4
    assert f"repaired {lost} from {word}, for 2 images" in done.stdout
    assert violations(store) == []
    assert run("verify").returncode == 0


def test_scripts_read_a_document_or_lines(run: Ocistow, store: Path) -> None:
    rot(store)
    document = json.loads(run("verify", "--dry-run", "--json").stdout)
    assert document["schemaVersion"] == 1
    (finding,) = document["findings"]
    assert (finding["severity"], finding["kind"]) == ("error", "bad-blob")
    assert finding["digest"] == str(LAYER)
    assert document["summary"]["errors"] == 1
    lines = run("verify", "--json-lines", "--repair", "spare").stdout.splitlines()
    found, one, two, summary = map(json.loads, lines)
    assert (found["type"], found["fate"]) == ("finding", "quarantined")
    assert (one["type"], one["from"]) == (two["type"], two["from"]) == ("repair", "spare")
    assert (summary["type"], summary["repairedBlobs"]) == ("summary", 1)


def test_names_limit_what_is_read(run: Ocistow, store: Path) -> None:
    rot(store)
    done = run("verify", "example.com/app:3")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{len(B.blobs)} blobs read" in done.stdout
    assert run("verify", "example.com/app:1").returncode == 4
    assert run("verify", "example.com/none").returncode == os.EX_NOINPUT


def test_layers_are_inflated_when_asked(run: Ocistow, store: Path) -> None:
    assert run("verify", "--deep").returncode == 0
    config = A.blobs[CONFIG].replace(str(LAYER).encode(), str(OTHER).encode())
    manifest = json.loads(A.blobs[MANIFEST])
    with Store.open(store, QuickDisk()) as opened:
        digest = opened.blobs.add([config])
        manifest["config"].update(digest=str(digest), size=len(config))
        raw = json.dumps(manifest).encode()
        root = opened.blobs.add([raw])
        name = Reference.parse("example.com/app:4")
        opened.put(name, type(A.root)(A.root.media_type, root, len(raw)))
    assert run("verify").returncode == 0
    done = run("verify", "--deep")
    assert done.returncode == 4
    assert f"{LAYER} inflates to {LAYER}, the config says {OTHER}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--repair", "-"], "standard input"),
        (["--repair", "nowhere"], "'nowhere' is no source"),
        (["--repair", "spare", "--dry-run"], "exclude each other"),
        (["--json", "--json-lines"], "exclude each other"),
        (["--read-data-subset", "0%"], "is not a share"),
        (["--read-data-subset", "3/2"], "is not a share"),
        (["--rate", "fast"], "is not a number of bytes"),
    ],
)
def test_a_malformed_wish_is_refused(
    run: Ocistow, store: Path, arguments: list[str], said: str
) -> None:
    done = run("verify", *arguments)
    assert done.returncode in (2, os.EX_DATAERR)
    assert said in done.stderr


@pytest.mark.parametrize("subset", ["5%", "1/2", "1k"])
def test_some_of_the_blobs_are_read(run: Ocistow, store: Path, subset: str) -> None:
    done = run("verify", "--read-data-subset", subset, "--rate", "50MB/s", "--full")
    assert (done.returncode, done.stderr) == (0, "")
