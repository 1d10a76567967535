"""Every command of every page works, and prints what the page says."""

import json
import os
import re
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import pytest

from ..conftest import program, serving_docker
from ..containerd.conftest import serving as containerd
from .page import PAGES, ROOT, Command, blocks, commands, differs
from .shell import make_images, run

RUN = [page for page in PAGES if commands(page)]
NOT_RUN = {
    "README.md": 1,
    "docs/artifacts.md": 3,
    "docs/bench.md": 2,
    "docs/durability.md": 1,
    "docs/install.md": 5,
    "docs/platforms.md": 2,
    "docs/posix.md": 1,
    "docs/scale.md": 3,
}
QUIET = {"", "ini", "json", "posix", "posix root", "posix user", "python", "text", "toml", "yaml"}
ELSEWHERE = {"README.md", "docs/phases.md", "docs/artifacts.md"}  # their `sh`, by tests of cnb


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("images")
    make_images(directory)
    return directory


@pytest.fixture
def stack() -> Generator[ExitStack]:
    with ExitStack() as servers:
        yield servers


@pytest.mark.docker
@pytest.mark.fuse
@pytest.mark.registry
@pytest.mark.slow
@pytest.mark.tools
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_the_commands_do_what_the_page_says(
    page: Path,
    images: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    stack: ExitStack,
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, for a network and mounts of its own")
    for needed in ("docker-registry", "ip", "skopeo", "unshare"):
        program(needed)
    typed = commands(page)
    variables: dict[str, str] = {}
    if any("docker-daemon:" in command.text for command in typed):
        place = tmp_path_factory.mktemp("docker")  # whose sockets have short names
        # that of all tests has our layers
        variables["DOCKER_HOST"] = stack.enter_context(serving_docker(place)).host
    if any("containerd:" in command.text for command in typed):
        place = tmp_path / "containerd"
        variables["CONTAINERD_ADDRESS"] = stack.enter_context(containerd(place, place / "root"))
    done = run(typed, images, tmp_path, variables)
    told = "\n".join(f"$ {step.command.text}\n{step.output}" for step in done)
    for step in done:
        assert not differs(step.command.output, step.output), told
    assert len(done) == len(typed), told
    assert done[-1].status == 0, told


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_is_not_run_is_counted(page: Path) -> None:
    name = str(page.relative_to(ROOT))
    left = [block for block in blocks(page) if block.reason is not None]
    assert len(left) == NOT_RUN.get(name, 0)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_command_stands_where_it_is_run(page: Path) -> None:
    name = str(page.relative_to(ROOT))
    for block in blocks(page):
        if block.language == "console" or block.reason is not None:
            continue
        if block.language == "sh":
            assert name in ELSEWHERE
        else:
            assert block.language in QUIET
            assert not re.search(
                r"^(\$ )?(ocistow|skopeo|pytest|python) ", block.text, re.MULTILINE
            )


REPORTS = {  # as the headlines of docs/reports.md say
    "add --json": "oci:base:1 example.com/base:1",
    "ls --json": "",
    "inspect --json": "example.com/base:1",
    "publish --json": "example.com/base:1 docker://localhost:5000/base:1",
    "du --json": "",
    "gc --json": "",
    "gc --json --explain": "c8df",
    "verify --json": "",
    "link --json": "example.com/base:1 out",
    "dedupe --json": "app",
    "tag --json": "example.com/base:1 example.com/base:2",
    "rm --json": "example.com/base:2",
    "reindex --json": "",
    "remote ls --json": "",
    "mount --status --json": "",
    "doctor --json": "",
}
OPEN = {"annotations", "config", "obstacles", "operations", "rest", "tables", "ways"}  # theirs


def members(value: object) -> Iterator[str]:
    """Yield the names of members, also of objects in objects."""
    if isinstance(value, list):
        for each in cast("list[object]", value):
            yield from members(each)
    elif isinstance(value, dict):
        for name, below in cast("dict[str, object]", value).items():
            yield name
            if name not in OPEN:
                yield from members(below)


@pytest.mark.fuse
@pytest.mark.slow
def test_every_member_of_a_report_is_explained(images: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    page = (ROOT / "docs" / "reports.md").read_text()
    sections = dict(re.findall(r"^## `([^`]+)`\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE))
    assert sections.keys() == REPORTS.keys()
    lines = ["mkdir oci", "ocistow --store store mount oci --background"]
    lines += [f"ocistow --store store {words} {rest}" for words, rest in REPORTS.items()]
    done = run([Command(line, ()) for line in lines], images, tmp_path, {})
    assert len(done) == len(lines), done[-1]
    alike = sections["ls --json"] + sections["add --json"]
    unexplained: set[str] = set()
    for words, step in zip(REPORTS, done[2:], strict=True):
        known = set(re.findall(r"`(\w+)`", sections[words] + alike))
        missing = set(members(json.loads(step.output))) - known - {"schemaVersion"}
        unexplained |= {f"{name} of {words}" for name in missing}
    assert unexplained == set()


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        (
            "added: 5 blobs (26.3 MB), digest sha256:ac6a…",
            "added: 5 blobs (9 B), digest sha256:0123",
        ),
        ("a  b", "a     b"),
        ("first\n…\nlast", "first\nand\nmore\nlast"),
        ("to undo: …/20261121T214711.346732Z.jsonl", "to undo: /x/20270101T000000.000000Z.jsonl"),
        ("", "anything"),
    ],
)
def test_digests_sizes_and_times_may_differ(shown: str, printed: str) -> None:
    assert not differs(tuple(shown.splitlines()), f"{printed}\n")


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("5 blobs", "6 blobs"),
        ("5 blobs", ""),
        ("5 blobs", "5 blobs\nand a warning"),
        ("digest sha256:ac6a…", "digest none"),
        ("2.00 times", "3.00 times"),
    ],
)
def test_all_else_may_not(shown: str, printed: str) -> None:
    assert differs(tuple(shown.splitlines()), f"{printed}\n")


def test_a_command_that_fails_ends_the_page(images: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    typed = [Command(text, ()) for text in ("false", "echo $?", "echo a; false", "echo never")]
    assert [step.status for step in run(typed, images, tmp_path, {})] == [1, 0, 1]
