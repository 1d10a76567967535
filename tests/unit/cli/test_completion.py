from pathlib import Path

import pytest

from ocistow.cli.completion import ENOUGH, completions


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / "index.json").touch()


def test_few_names_are_completed_at_once(tmp_path: Path) -> None:
    make(tmp_path, "e.x/a/1", "e.x/a/2", "e.x/ab/1", "f.x/b/sha256/" + "a" * 64)
    everything = ["e.x/a:1", "e.x/a:2", "e.x/ab:1", "f.x/b@sha256:" + "a" * 64]
    assert completions(tmp_path, "") == everything
    assert completions(tmp_path, "e") == everything[:3]
    assert completions(tmp_path, "e.x/a") == everything[:3]
    assert completions(tmp_path, "e.x/a:") == everything[:2]
    assert completions(tmp_path, "e.x/a:2") == everything[1:2]
    assert completions(tmp_path, "f.x/b@sha") == everything[3:]
    assert completions(tmp_path, "e.x/a:3") == completions(tmp_path, "g") == []


@pytest.fixture
def large(tmp_path: Path) -> Path:
    make(tmp_path, *(f"e.x/a{n}/{tag}" for n in range(ENOUGH) for tag in range(2)), "f.x/a/1")
    make(tmp_path, *(f"g.x/a/{tag}" for tag in range(2 * ENOUGH)))
    return tmp_path


@pytest.mark.parametrize(
    ("incomplete", "first", "count"),
    [
        ("", "e.x/", 3),
        ("e", "e.x/a0/", ENOUGH),
        ("e.x/a9", "e.x/a90:0", 2 * 10 + 2),
        ("e.x/a9:", "e.x/a9:0", 2),
        ("f", "f.x/a:1", 1),
        ("g", "g.x/a:0", 2 * ENOUGH),
        ("g.x/a:19", "g.x/a:19", 11),
    ],
)
def test_many_are_completed_by_directory(
    large: Path, incomplete: str, first: str, count: int
) -> None:
    found = completions(large, incomplete)
    assert (found[0], len(found)) == (first, count)
