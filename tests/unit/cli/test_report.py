"""The files that --report, --digest-file and --image-refs ask for."""

import json
import os
import re
import stat
from pathlib import Path
from typing import cast

import jsonschema
import pytest

from ocistow.oci.digest import Digest
from ocistow.oci.document import Object
from ocistow.testing.faults import Fault, Status
from ocistow.testing.images import artifact_layout, image_layout, index_layout
from ocistow.testing.registry import Registry

from .conftest import Ocistow

SCHEMA = Path(__file__).parents[2] / "schemas" / "report.json"


def checked(file: Path) -> dict[str, object]:
    """Return a report that its schema accepts."""
    schema = cast("Object", json.loads(SCHEMA.read_text()))
    report: dict[str, object] = json.loads(file.read_text())
    jsonschema.validate(report, schema, cls=jsonschema.Draft7Validator)
    return report


def test_a_report_has_every_blob(tmp_path: Path, run: Ocistow) -> None:
    image = image_layout(tmp_path / "layout")
    with Registry() as registry:
        target = f"docker://{registry.host}/app:1"
        assert run("add", "oci:layout", "e.x/app:1", "--report", "in.json").returncode == 0
        assert run("publish", "e.x/app:1", target, "--report", "out.json").returncode == 0
        assert run("publish", "e.x/app:1", target, "--report", "again.json").returncode == 0
    wanted = {str(digest) for digest in (*image.layers, image.config, image.manifest)}
    for name, action in (("in", "sent"), ("out", "sent"), ("again", "present")):
        report = checked(tmp_path / f"{name}.json")
        [one] = cast("list[Object]", report["destinations"])
        blobs = cast("list[dict[str, object]]", one["blobs"])
        assert {blob["digest"] for blob in blobs} == wanted
        assert {blob["action"] for blob in blobs} == {action}
        assert one["digestIn"] == one["digestOut"] == str(image.manifest)
        assert cast("Object", report["source"])["digest"] == str(image.manifest)
        assert all(blob["bytes"] == (blob["size"] if action == "sent" else 0) for blob in blobs)
        size = sum(cast("int", blob["size"]) for blob in blobs)
        assert cast("dict[str, object]", one["totals"])[action] == {"blobs": 5, "bytes": size}


@pytest.fixture
def signed(tmp_path: Path, run: Ocistow) -> tuple[Digest, Digest]:
    """Take in an image with its signature, which `in.json` reports; return both manifests."""
    image = image_layout(tmp_path / "layout")
    signature = artifact_layout(tmp_path / "signature", [b"signed"], subject=image)
    with Registry() as registry:
        place = f"docker://{registry.host}/app:1"
        assert run("add", "oci:layout", "e.x/app:1").returncode == 0
        assert run("add", "oci:signature", "e.x/signature:1").returncode == 0
        assert run("publish", "e.x/app:1", place).returncode == 0
        target = f"docker://{registry.host}/app@{signature}"
        assert run("publish", "e.x/signature:1", target).returncode == 0
        done = run("add", place, "e.x/new:1", "--referrers", "--report", "in.json")
    assert done.stdout.splitlines()[1].startswith("referrers: ")
    return image.manifest, signature


def test_referrers_go_along(tmp_path: Path, run: Ocistow, signed: tuple[Digest, Digest]) -> None:
    with Registry() as there:
        target = f"docker://{there.host}/app:1"
        done = run("publish", "e.x/new:1", target, "--referrers", "--report", "out.json")
        assert re.fullmatch(r"referrers: 3 sent \(.* B\), 0 present", done.stdout.splitlines()[1])
        again = run("publish", "e.x/new:1", target, "--referrers", "--json")
        assert json.loads(again.stdout)["published"][0]["referrers"] == []
        for name in ("in", "out"):
            [one] = cast("list[Object]", checked(tmp_path / f"{name}.json")["destinations"])
            assert len(cast("list[Object]", one["referrers"])) == 1
        copied = run("add", f"docker://{there.host}/app@{signed[1]}", "e.x/back:1")
        assert str(signed[1]) in copied.stdout
    assert run("add", "oci:layout", "a", "--referrers").returncode == 2
    assert run("publish", "e.x/new:1", "oci:out", "--referrers").returncode == 2


def test_an_image_is_published_though_its_referrers_are_not(
    tmp_path: Path, run: Ocistow, signed: tuple[Digest, Digest]
) -> None:
    image = signed[0]
    with Registry() as registry:
        target = f"docker://{registry.host}/app:1"
        registry.faults.append(Fault("GET", "/referrers/", Status(403), None))
        records = ("--report", "out.json", "--image-refs", "refs")
        done = run("publish", "e.x/new:1", target, "--referrers", "--json", *records)
        assert registry.repositories.tags("app") == {"1": image}
    assert (done.returncode, done.stderr.count("\n")) == (69, 1)
    assert "/referrers/" in done.stderr
    [published] = json.loads(done.stdout)["published"]
    assert published["digest"] == str(image)
    assert f"ocistow: {published['error']}\n" == done.stderr
    [one] = cast("list[Object]", checked(tmp_path / "out.json")["destinations"])
    assert (one["digestOut"], one["error"]) == (str(image), published["error"])
    assert (tmp_path / "refs").read_text() == f"{registry.host}/app:1@{image}\n"


def test_digest_and_references_are_written(tmp_path: Path, run: Ocistow) -> None:
    index = index_layout(tmp_path / "layout")
    files = ("--digest-file", "digest", "--image-refs", "refs")
    assert run("add", "oci:layout", "e.x/app:1", *files).returncode == 0
    assert (tmp_path / "digest").read_text() == str(index.index)
    assert (tmp_path / "refs").read_text() == f"e.x/app:1@{index.index}\n"
    with Registry() as registry:
        places = [f"docker://{registry.host}/a:1", f"docker://{registry.host}/b@{index.index}"]
        assert run("publish", "e.x/app:1", *places, *files).returncode == 0
        assert (tmp_path / "refs").read_text().splitlines() == [
            f"{registry.host}/a:1@{index.index}",
            f"{registry.host}/b@{index.index}",
        ]
        arm = index.images[1].manifest
        place = f"docker://{registry.host}/c"
        done = run("publish", "e.x/app:1", place, *files, "--platform", "linux/arm64")
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "digest").read_text() == str(arm)
        assert (tmp_path / "refs").read_text() == f"{registry.host}/c:latest@{arm}\n"


def test_a_file_is_replaced_at_once_and_what_is_no_file_is_written_into(
    tmp_path: Path, run: Ocistow
) -> None:
    image = image_layout(tmp_path / "layout")
    old = tmp_path / "digest"
    old.write_text("old")
    os.link(old, tmp_path / "kept")
    (tmp_path / "link").symlink_to("digest")
    assert run("add", "oci:layout", "a", "--digest-file", "link").returncode == 0
    assert old.read_text() == str(image.manifest)
    assert (tmp_path / "kept").read_text() == "old"
    assert (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []
    done = run("add", "oci:layout", "a", "--digest-file", "/dev/stdout")
    assert f"{image.manifest}\nadded" in done.stdout
    done = run("add", "oci:layout", "a", "--digest-file", "-")
    assert f"{image.manifest}\nadded" in done.stdout
    assert not (tmp_path / "-").exists()
    with (tmp_path / "out").open("w") as out:
        run("add", "oci:layout", "a", "--digest-file", "/dev/stdout", stdout=out.fileno())
    assert f"{image.manifest}\nadded" in (tmp_path / "out").read_text()
    assert run("add", "oci:layout", "a", "--report", "/dev/null").returncode == 0
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, run: Ocistow) -> None:
    image_layout(tmp_path / "layout")
    done = run("add", "oci:layout", "a", "--report", "absent/report.json")
    assert done.returncode == 74
    assert "absent/.report.json" not in done.stderr
    assert "absent/report.json" in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout.startswith("added ")  # which is so
    with Registry() as registry:
        target = f"docker://{registry.host}/app:1"
        done = run("publish", "a", target, "--digest-file", "absent/digest")
    assert (done.returncode, done.stderr.count("\n")) == (74, 1)
    assert done.stdout.startswith(f"pushed {target}: 5 sent ")


@pytest.mark.parametrize("option", ["--creds=user:secret", "--registry-token=secret"])
def test_a_secret_is_for_one_registry(run: Ocistow, option: str) -> None:
    done = run("publish", "a", "docker://a.x/b", "docker://c.x/b", option)
    assert done.returncode == 2
    assert "secret" not in done.stderr
