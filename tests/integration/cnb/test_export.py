"""What the exporter makes of a build, seen by others: skopeo, umoci, and a daemon that runs it."""

import io
import json
import os
import random
import shutil
import stat
import subprocess
import urllib.request
from collections.abc import Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ocistow.lifecycle.console import Console
from ocistow.lifecycle.export import export
from ocistow.lifecycle.files.labels import LIFECYCLE_METADATA, LifecycleMetadata
from ocistow.lifecycle.files.report import read_report
from ocistow.lifecycle.images.image import Saved
from ocistow.lifecycle.inputs import Inputs
from ocistow.oci.digest import Digest
from ocistow.publish.compression import PART
from ocistow.publish.docker.engine import Engine
from ocistow.publish.source import Stream
from ocistow.testing.builds import Build, build
from ocistow.testing.images import busybox_image, image_layout

from ..conftest import Dockerd, DockerRegistry, program
from .places import PLACES, Place, opened

# A launcher that only tells what it was started as; the real one is not ours to make.
LAUNCHER = r"""
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(int count, char **words) {
    char here[4096];
    printf("%s", words[0]);
    for (int i = 1; i < count; i++) printf(" %s", words[i]);
    printf("\n%s\n%s\n%s\n", getcwd(here, sizeof here), getenv("PATH"), getenv("CNB_APP_DIR"));
    return 0;
}
"""
OWNER = (1000, 1001)


@dataclass(frozen=True, slots=True)
class Work:
    """A build, and where it is exported to."""

    build: Build
    place: Place

    def inputs(self) -> Inputs:
        return self.place.given(self.build.inputs("app:v1"))

    def export(self) -> tuple[Saved, list[str]]:
        inputs, out = self.inputs(), io.BytesIO()
        with self.place.open(inputs) as target:
            saved = export(inputs, target, Console(out))
        return saved, out.getvalue().decode().splitlines()

    def analyze(self, *, previous: bool = False) -> None:
        """Write analyzed.toml."""
        inputs = self.inputs()
        with self.place.find(inputs, "run:latest") as run:
            if not previous:
                self.build.analyzed(run.identifier)
                return
            with self.place.find(inputs, "app:v1") as app:
                label = app.config.labels[LIFECYCLE_METADATA].encode()
                metadata = LifecycleMetadata.parse(label)
                self.build.analyzed(run.identifier, app.identifier, metadata)


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    directory = tmp_path_factory.mktemp("launcher")
    source, made = directory / "launcher.c", directory / "launcher"
    source.write_text(LAUNCHER)
    subprocess.run([program("gcc"), "-static", "-O1", "-o", made, source], check=True)
    return made.read_bytes()


@pytest.fixture(params=PLACES)
def work(request: pytest.FixtureRequest, tmp_path: Path, launcher: bytes) -> Generator[Work]:
    made = build(tmp_path / "build")
    made.launcher.write_bytes(launcher)
    with opened(request.param, request, tmp_path / "place") as place:
        place.put(busybox_image(tmp_path / "run"), "run:latest")
        there = Work(made, place)
        there.analyze()
        yield there


def test_the_image_has_what_the_build_left(work: Work, tmp_path: Path) -> None:
    saved, _ = work.export()
    work.place.fetch("app:v1", tmp_path / "fetched")
    bundle = tmp_path / "bundle"
    command = [program("umoci"), "unpack", "--image", f"{tmp_path / 'fetched'}:latest", str(bundle)]
    subprocess.run(command, check=True, capture_output=True)
    root = bundle / "rootfs"
    made = work.build
    for path in ("samples_one/all-types", "samples_one/launched", "two/only", "config"):
        there = made.layers / path
        assert tree(root / there.relative_to("/")) == tree(there, OWNER)
    sbom = made.layers / "sbom" / "launch"
    assert tree(root / sbom.relative_to("/")) == tree(sbom, OWNER)
    assert tree(root / made.app.relative_to("/")) == tree(made.app, OWNER)
    layers = root / made.layers.relative_to("/")
    assert sorted(path.name for path in layers.iterdir()) == [
        "config",
        "samples_one",
        "sbom",
        "two",
    ]
    assert sorted(path.name for path in (layers / "samples_one").iterdir()) == [
        "all-types",
        "launched",
    ]
    assert [path.name for path in (layers / "sbom").iterdir()] == ["launch"]
    for process in ("web", "worker"):
        assert os.readlink(root / "cnb" / "process" / process) == "/cnb/lifecycle/launcher"
    launcher = root / "cnb" / "lifecycle" / "launcher"
    assert launcher.read_bytes() == made.launcher.read_bytes()
    status = launcher.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o755, 0, 0)
    assert (root / "bin" / "busybox").exists()

    config = inspected(tmp_path / "fetched")
    assert config["config"]["Entrypoint"] == ["/cnb/process/web"]
    report = read_report(made.report)
    assert report.tags == saved.names
    assert report.digest == saved.digest
    assert report.image_id == (saved.image_id.encoded if work.place.docker_host else "")


@pytest.mark.registry
@pytest.mark.docker
def test_others_read_layers_that_several_threads_compressed(
    request: pytest.FixtureRequest, tmp_path: Path, dockerd: Dockerd, launcher: bytes
) -> None:
    made = build(tmp_path / "build")
    made.launcher.write_bytes(launcher)
    words = [random.Random(7).randbytes(3).hex() for _ in range(1000)]
    text = "".join(random.Random(8).choices(words, k=PART // 2)).encode()  # three parts
    (made.layers / "two" / "only" / "words").write_bytes(text)
    with opened("registry", request, tmp_path / "place") as place:
        place.put(busybox_image(tmp_path / "run"), "run:latest")
        work = Work(made, place)
        work.analyze()
        work.export()
        name = work.inputs().image
        dockerd.run("pull", "--quiet", name)  # which checks every diffID
        digest = dockerd.run(
            "run", "--rm", "--net=none", "--entrypoint=/bin/busybox", name,
            "sha256sum", str(made.layers / "two" / "only" / "words"),
        )  # fmt: skip
    assert digest.split()[0] == Digest.of(text).encoded


def test_an_unchanged_build_is_the_same_image(work: Work) -> None:
    first, said = work.export()
    assert not any(line.startswith("Reusing layer '") for line in said)
    work.analyze(previous=True)
    second, said = work.export()
    assert second.image_id == first.image_id
    assert second.digest == first.digest
    assert not any(line.startswith("Adding layer") for line in said)
    assert "Reused 3/3 app layer(s)" in said


def test_what_changed_is_added_and_what_was_removed_is_gone(work: Work, tmp_path: Path) -> None:
    work.export()
    work.analyze(previous=True)
    (work.build.app / "index.html").write_text("<html>changed")
    (work.build.layers / "two" / "only.toml").unlink()
    saved, said = work.export()
    assert "Reused 2/3 app layer(s)" in said
    assert "Added 1/3 app layer(s)" in said
    assert "Reusing layer 'samples/one:launched'" in said
    assert not any("'two:only'" in line for line in said)
    work.place.fetch("app:v1", tmp_path / "fetched")
    config = inspected(tmp_path / "fetched")
    assert len(config["rootfs"]["diff_ids"]) == 1 + 9
    if not work.place.docker_host:
        raw = (tmp_path / "fetched" / "index.json").read_bytes()
        assert json.loads(raw)["manifests"][0]["digest"] == str(saved.digest)


def test_a_layer_without_content_comes_from_the_previous_image(work: Work) -> None:
    first, _ = work.export()
    work.analyze(previous=True)
    layer = work.build.layers / "samples_one" / "launched"
    subprocess.run(["rm", "-r", layer], check=True)
    second, said = work.export()
    assert second.image_id == first.image_id
    assert "Reusing layer 'samples/one:launched'" in said


@pytest.mark.parametrize(
    "work", [pytest.param("registry", marks=pytest.mark.registry)], indirect=True
)
def test_a_layer_that_the_registry_lost_is_added(work: Work) -> None:
    work.export()
    work.analyze(previous=True)
    with work.place.find(work.inputs(), "app:v1") as image:
        lost = image.layers[2].blob.digest
    host, _, repository = f"{work.place.prefix}app".partition("/")
    url = f"http://{host}/v2/{repository}/blobs/{lost}"
    with urllib.request.urlopen(urllib.request.Request(url, method="DELETE")) as answer:
        assert answer.status == 202
    (work.build.app / "index.html").write_text("changed")
    _, said = work.export()
    assert any("has lost layer 'samples/one:launched'" in line for line in said)
    with urllib.request.urlopen(urllib.request.Request(url, method="HEAD")) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    "work", [pytest.param("registry", marks=pytest.mark.registry)], indirect=True
)
@pytest.mark.parametrize("number", [0, 2], ids=["of the run image", "of the app"])
def test_an_unchanged_image_gets_back_what_its_registry_lost(
    work: Work, docker_registry: DockerRegistry, tmp_path: Path, number: int
) -> None:
    if number == 0:  # what all repositories lost is nowhere, so that only this one may have it
        work.place.put(image_layout(tmp_path / "other", seed=3), "run:latest")
        work.analyze()
    first, _ = work.export()
    work.analyze(previous=True)
    with work.place.find(work.inputs(), "app:v1") as image:
        lost = image.layers[number].blob.digest
    if number == 0:
        repository = f"{work.place.prefix.partition('/')[2]}app"
        links = docker_registry.root / "docker/registry/v2/repositories" / repository / "_layers"
        shutil.rmtree(links / "sha256" / lost.encoded)
    else:
        blobs = docker_registry.root / "docker/registry/v2/blobs/sha256"
        (blobs / lost.encoded[:2] / lost.encoded / "data").unlink()
    second, _ = work.export()
    assert second.digest == first.digest
    work.place.fetch("app:v1", tmp_path / "fetched")


DAEMON = [pytest.param("daemon", marks=pytest.mark.docker)]


@pytest.mark.parametrize("work", DAEMON, indirect=True)
def test_layers_of_a_daemon_are_kept_in_the_launch_cache(work: Work, tmp_path: Path) -> None:
    (cache := tmp_path / "launch-cache").mkdir()
    inputs = replace(work.inputs(), launch_cache_dir=cache)
    kept: list[set[str]] = []
    for content in ("first", "second"):
        (work.build.app / "index.html").write_text(content)
        with work.place.open(inputs) as target:
            export(inputs, target, Console(io.BytesIO()))
        with work.place.find(inputs, "app:v1") as image:
            expected = {f"{diff_id}.tar" for diff_id in image.config.diff_ids[1:]}
        kept.append({path.name for path in (cache / "committed").iterdir()})
        assert kept[-1] == expected
        work.analyze(previous=True)
    assert len(kept[0] - kept[1]) == 1


@pytest.mark.parametrize("work", DAEMON, indirect=True)
@pytest.mark.parametrize("fault", ["none", "lost", "damaged"])
def test_layers_are_read_out_of_the_launch_cache_not_out_of_the_daemon(
    work: Work, tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    save = Engine.save

    def counted(engine: Engine, name: str) -> AbstractContextManager[Stream]:
        asked.append(name)
        return save(engine, name)

    monkeypatch.setattr(Engine, "save", counted)
    (cache := tmp_path / "launch-cache").mkdir()
    inputs = replace(work.inputs(), launch_cache_dir=cache)
    with work.place.open(inputs) as target:
        export(inputs, target, Console(io.BytesIO()))
    work.analyze(previous=True)
    with work.place.find(inputs, "app:v1") as image:
        kept = cache / "committed" / f"{image.config.diff_ids[-1]}.tar"
    if fault == "lost":
        kept.unlink()
    elif fault == "damaged":
        kept.write_bytes(bytes(kept.stat().st_size))
    asked.clear()
    (work.build.app / "index.html").write_text("what is upon this has to be sent again")
    subprocess.run(["rm", "-r", work.build.layers / "samples_one" / "launched"], check=True)
    with work.place.open(inputs) as target:
        export(inputs, target, out := Console(io.BytesIO()))
    assert len(asked) == (fault != "none"), out
    name = f"{work.place.prefix}app:v1"
    assert Dockerd(work.place.docker_host).run("run", "--rm", "--network", "none", name)


@pytest.mark.parametrize("work", DAEMON, indirect=True)
def test_the_image_runs(work: Work, dockerd: Dockerd) -> None:
    work.export()
    name = f"{work.place.prefix}app:v1"
    said = dockerd.run("run", "--rm", "--network", "none", name, "--port", "80").splitlines()
    assert said == [
        "/cnb/process/web --port 80",
        str(work.build.app),
        "/cnb/process:/cnb/lifecycle:/bin",
        str(work.build.app),
    ]
    tool = ["--entrypoint", str(work.build.layers / "samples_one" / "launched" / "set")]
    mode = dockerd.run(
        *("run", "--rm", "--network", "none", "--entrypoint", "/bin/ls", name, "-l", tool[1])
    )
    assert mode.startswith("-rwsr-sr-x")


def tree(root: Path, owner: tuple[int, int] | None = None) -> dict[str, tuple[object, ...]]:
    """Return kind, mode, owner and content of a directory and of all below it, by their paths."""
    found: dict[str, tuple[object, ...]] = {}
    for path in (root, *root.rglob("*")):
        status = path.lstat()
        content: object = None
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = path.read_bytes()
        owned = owner or (status.st_uid, status.st_gid)
        found[str(path.relative_to(root))] = (oct(status.st_mode), *owned, content)
    return found


def inspected(layout: Path) -> dict[str, dict[str, list[str]]]:
    """Return the config of the only image in a layout, as skopeo sees it."""
    command = [program("skopeo"), "inspect", "--config", f"oci:{layout}:latest"]
    done = subprocess.run(command, check=True, capture_output=True)
    config: dict[str, dict[str, list[str]]] = json.loads(done.stdout)
    return config
