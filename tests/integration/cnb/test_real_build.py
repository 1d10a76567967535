"""Detector, builder and creator of Go's lifecycle beside ours, on the same files."""

import os
import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from ocistow.lifecycle.files.labels import BUILD_METADATA, LIFECYCLE_METADATA
from ocistow.oci.document import as_object, strings
from ocistow.testing.images import busybox_image
from ocistow.testing.mounts import mounted

from .workplace import Workplace, workplace

NAME = "example.com/app:1"
APIS = ("0.7", "0.8", "0.9", "0.10", "0.11", "0.12", "0.13", "0.14", "0.15")


def tree(root: Path) -> dict[str, tuple[int, bytes | str]]:
    """Return permissions and content of everything in a directory."""
    found: dict[str, tuple[int, bytes | str]] = {}
    for path in sorted(root.rglob("*")):
        mode = path.lstat().st_mode
        if path.is_symlink():
            found[str(path.relative_to(root))] = mode, os.readlink(path)
        else:
            found[str(path.relative_to(root))] = mode, path.read_bytes() if path.is_file() else b""
    return found


def plan(content: bytes | str) -> list[str]:
    """Return the entries of plan.toml, which Go writes in any order."""
    assert isinstance(content, bytes)
    return sorted(map(repr, tomllib.loads(content.decode()).get("entries", [])))


def without_directories(text: str) -> str:
    return re.sub(r"/tmp/[\w.-]*[0-9_a-z]{5,}(/\w+)?/plan\.toml", "PLAN", text)


def observe(place: Workplace) -> None:
    """Let acme/observer write its variables where `tree` does not look."""
    directory = place.root / "observed"
    directory.mkdir(exist_ok=True)
    (place.root / "platform" / "env" / "OBSERVED_DIR").write_text(str(directory))
    (place.root / "platform" / "env" / "PATH").write_text("/of/the/user")
    (place.root / "config" / "env" / "OPERATOR.append").write_text("too")
    place.own()


@pytest.mark.parametrize("api", APIS)
def test_detect_and_build_leave_the_same(api: str, real: Callable[[str], Path]) -> None:
    left: list[tuple[object, ...]] = []
    with workplace() as place:
        place.api = api
        observe(place)
        for programs in (real("detector").parent, None):
            place.programs = programs
            place.fresh("layers")
            said = place.run("detector") + place.run("builder")
            files = tree(place.root / "layers")
            _, written = files.pop("plan.toml")
            variables = {
                path.name: without_directories(path.read_text())
                for path in (place.root / "observed").iterdir()
            }
            shown = [line for line in said.splitlines() if not line.startswith("descriptors")]
            left.append((files, plan(written), variables, shown))
    assert left[0] == left[1]


@pytest.mark.parametrize("first", ["detector", "builder"])
def test_phases_of_both_work_together(first: str, real: Callable[[str], Path]) -> None:
    left: list[object] = []
    with workplace() as place:
        for is_real in (True, False):
            place.fresh("layers")
            for program in ("detector", "builder"):
                place.programs = real(program).parent if is_real == (program == first) else None
                place.run(program)
            files = tree(place.root / "layers")
            del files["plan.toml"]
            left.append(files)
    assert left[0] == left[1]


@pytest.mark.parametrize("group", [("samples/bash-script@0.0.1", "absent@1"), ("absent@1",)])
def test_what_cannot_be_detected_ends_alike(
    group: tuple[str, ...], real: Callable[[str], Path]
) -> None:
    said: list[str] = []
    with workplace() as place:
        shutil.rmtree(place.root / "buildpacks" / "absent", ignore_errors=True)
        text = (place.root / "order.toml").read_text()
        for name in group:
            identifier, _, version = name.partition("@")
            text += f'[[order]]\n[[order.group]]\nid = "{identifier}"\nversion = "{version}"\n'
        (place.root / "order.toml").write_text(text)
        for programs in (real("detector").parent, None):
            place.programs = programs
            said.append(place.run("detector", status=1))
        (place.root / "app" / "app.sh").unlink()
        (place.root / "order.toml").write_text(
            '[[order]]\n[[order.group]]\nid = "samples/bash-script"\nversion = "0.0.1"\n'
        )
        for programs in (real("detector").parent, None):
            place.programs = programs
            said.append(place.run("detector", status=20))
    assert said[0] == said[1]
    assert said[2] == said[3]


@pytest.mark.parametrize("api", ["0.12", "0.15"])
def test_creator_makes_the_same_image_from_the_same_cache(
    api: str, real: Callable[[str], Path]
) -> None:
    made: list[tuple[object, object]] = []
    with workplace() as place:
        place.api = api
        busybox_image(place.layout("example.com/run:base"), tag="base")
        place.own()
        for programs in (real("creator").parent, None):
            place.programs = programs
            shutil.rmtree(place.layout(NAME), ignore_errors=True)
            place.fresh("layers", "cache")
            place.build(NAME, one=True)
            place.fresh("layers")
            place.build(NAME, one=True)
            config = place.config(NAME)
            container = as_object(config["config"], "config")
            labels = {
                name: value
                for name, value in strings(container, "Labels", "config").items()
                # these name the version of the launcher, and the digest of the run image
                if name not in (LIFECYCLE_METADATA, BUILD_METADATA)
            }
            same = {**config, "config": {**container, "Labels": labels}}
            made.append((same, tree(place.root / "cache")))
    assert made[0] == made[1]


@pytest.mark.fuse
def test_go_s_creator_builds_twice_on_a_mounted_store(real: Callable[[str], Path]) -> None:
    with workplace() as place, mounted(place.root / "store", place.root / "mnt") as mount:
        busybox_image(place.root / "base", tag="base")
        place.layouts = mount.path
        target = place.layout("example.com/run:base")
        target.parent.mkdir(parents=True)
        shutil.copytree(place.root / "base", target, copy_function=shutil.copyfile)
        place.programs = real("creator").parent
        place.build(NAME, one=True)
        config = place.manifest(NAME)["config"]
        place.fresh("layers")
        said = place.build(NAME, one=True)
        assert "Adding layer" not in said
        assert place.manifest(NAME)["config"] == config
        place.programs = None
        place.fresh("layers")
        assert "Adding layer" not in place.build(NAME, one=True)  # and ours takes up Go's
