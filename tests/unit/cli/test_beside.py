"""What `du` tells beside its table: a page, a daemon's account, what could be saved."""

import json
import os
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from ocistow.oci.digest import Digest
from ocistow.testing.images import image_layout
from ocistow.testing.peers import scripted

from .conftest import Ocistow
from .test_commands import ok

NUMBERS = ("apparent", "onDisk", "shared", "exclusive", "amortised", "reclaimable")


@pytest.fixture
def config(tmp_path: Path, run: Ocistow) -> Digest:
    """Store an image under two names, and another; return the config of the first."""
    first = image_layout(tmp_path / "layout", layer_size=50_000)
    image_layout(tmp_path / "layout", seed=1, layer_size=90_000, tag="other")
    for source, name in (("latest", "e.x/a:1"), ("latest", "e.x/a:2"), ("other", "e.x/b/c:1")):
        ok(run("add", f"oci:layout:{source}", name))
    return first.config


def page_data(path: Path) -> Any:
    match = re.search(r'id="data">(.*?)</script>', path.read_text(), re.DOTALL)
    assert match is not None
    return json.loads(match[1])


@pytest.mark.usefixtures("config")
def test_table_document_and_page_have_the_same_numbers(tmp_path: Path, run: Ocistow) -> None:
    done = run("du", "--json", "--html", "page.html", "--potential")
    found = json.loads(ok(done))
    assert re.search(r"^wrote page.html: \d+\.\d kB$", done.stderr, re.MULTILINE)
    data = page_data(tmp_path / "page.html")
    images = {one["name"]: [one[number] for number in NUMBERS] for one in found["images"]}
    assert {row[0]: row[1:] for row in data["tables"]["images"]["rows"]} == images
    assert data["tree"][1] == found["total"]["everything"]
    lines = [line.split() for line in ok(run("du", "--bytes", "--potential")).splitlines()]
    table = {cells[0]: [int(n) for n in cells[1:]] for cells in lines[1:5]}
    total = [found["total"][number] for number in NUMBERS]
    assert table == {**images, "total": total}
    saving = found["potential"]
    levels = {tuple(line[:2]): line[2:4] for line in lines if line[:1] == ["each"]}
    for what in ("layer", "file", "chunk"):
        level = saving[f"by{what.title()}"]
        assert levels["each", what] == [str(level["stored"]), str(level["inflated"])]
    assert saving["layers"] == 6
    assert saving["files"] == 6 * 3


@pytest.mark.usefixtures("config")
def test_a_page_may_show_some_images_only(tmp_path: Path, run: Ocistow) -> None:
    assert ok(run("du", "e.x/a:1", "--html", "page.html")) == ""
    data = page_data(tmp_path / "page.html")
    assert [row[0] for row in data["tables"]["images"]["rows"]] == ["e.x/a:1"]
    assert data["tree"][0] == "all images"


def test_a_page_that_cannot_be_written_is_an_error(tmp_path: Path, run: Ocistow) -> None:
    ok(run("add", f"oci:{image_layout(tmp_path / 'layout').path}", "e.x/a:1"))
    done = run("du", "--html", "absent/page.html")
    assert done.returncode != 0
    assert done.stderr.startswith("ocistow: ")
    assert "absent" in done.stderr


def test_a_daemons_account_is_put_beside_ours(config: Digest, run: Ocistow) -> None:
    image = {"Id": str(config), "RepoTags": ["a:1"], "Size": 900_000, "SharedSize": 1_000_000}
    other = {"Id": f"sha256:{'1' * 64}", "RepoTags": None, "Size": 7, "SharedSize": 0}
    body = json.dumps({"LayersSize": 900_007, "Images": [image, other]}).encode()

    def answer(connection: socket.socket) -> None:
        connection.recv(4096)
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        connection.sendall(head + body)

    with scripted(answer, answer) as host:
        daemon = f"--docker-host=tcp://{host}"
        lines = ok(run("du", "--daemon", daemon, "--bytes")).splitlines()
        found = json.loads(ok(run("du", "--daemon", daemon, "--json")))
    at = next(n for n, line in enumerate(lines) if line.startswith("beside the docker daemon"))
    ours = {one["name"]: one["onDisk"] for one in found["images"]}
    header = " ".join(lines[at + 1].split())
    assert header == "NAME ON DISK EXCLUSIVE DAEMON UNIQUE DIFFERENCE"
    for line, name in zip(lines[at + 2 : at + 4], ("e.x/a:1", "e.x/a:2"), strict=True):
        cells = line.split()
        assert cells[:2] == [name, str(ours[name])]
        assert cells[3:] == ["900000", "-100000", str(900_000 - ours[name])]
    assert lines[-1] == "the daemon has 1 image that the store lacks"
    told = found["daemon"]
    assert [one["name"] for one in told["images"]] == ["e.x/a:1", "e.x/a:2"]
    assert told["images"][0]["ids"] == [str(config)]
    assert (told["daemonTotal"], told["daemonImages"], told["others"]) == (900_007, 2, 1)


def test_no_daemon_is_an_error(tmp_path: Path, run: Ocistow) -> None:
    ok(run("add", f"oci:{image_layout(tmp_path / 'layout').path}", "e.x/a:1"))
    done = run("du", "--daemon", "--docker-host", "unix:///absent/socket")
    assert done.returncode == os.EX_TEMPFAIL
    assert "unix:///absent/socket" in done.stderr
    assert done.stdout == ""


def test_a_layer_that_cannot_be_read_is_told(tmp_path: Path, run: Ocistow) -> None:
    image = image_layout(tmp_path / "layout", layers=2)
    ok(run("add", "oci:layout", "e.x/a:1"))
    blob = tmp_path / "store" / "blobs" / "sha256" / image.layers[0].encoded
    blob.chmod(0o644)
    blob.write_bytes(b"\x1f\x8b" + blob.read_bytes()[:-2])
    done = run("du", "--potential")
    assert "an estimate from 1 layer with 3 files" in ok(done)
    assert f"not counted: {image.layers[0]}: " in done.stderr
