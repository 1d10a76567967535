"""Which layouts a word means, and that nobody looks where none can be."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocistow.oci.errors import InvalidContent
from ocistow.oci.pattern import Pattern
from ocistow.store.names import Search

LAYOUTS = (
    "e.x/app/1.0",
    "e.x/app/1.1",
    "e.x/app/sha256/" + "a" * 64,
    "e.x/app/web/1.0",
    "e.x/app-two/1.0",
    "index.docker.io/library/alpine/3.20",
    "index.docker.io/library/alpine/latest",
    "index.docker.io/team/app/latest",
    "[::1]:5000/app/latest",
    "plain",
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in LAYOUTS:
        (tmp_path / name / "blobs" / "sha256").mkdir(parents=True)
        (tmp_path / name / "index.json").touch()
    (tmp_path / "e.x/app/1.0/blobs/index.json").touch()  # no layout, whatever it holds
    (tmp_path / "e.x/half/1.0").mkdir(parents=True)
    (tmp_path / "e.x/link").symlink_to("app")
    return tmp_path


@pytest.mark.parametrize(
    ("word", "numbers"),
    [
        ("e.x/app:1.0", [0]),
        ("e.x/app/1.0", [0]),
        ("e.x/app", [0, 1, 2, 3]),
        ("e.x/app/", [0, 1, 2, 3]),
        ("e.x", [0, 1, 2, 3, 4]),
        ("e.x/app:1.*", [0, 1]),
        ("e.x/app:1.[1-9]", [1]),
        ("e.x/app*:1.0", [0, 4]),
        ("e.x/app@sha256:" + "a" * 64, [2]),
        ("e.x/app:9@sha256:" + "a" * 64, [2]),
        ("e.x/app@sha256:*", [2]),
        ("alpine", [5, 6]),
        ("docker.io/alpine", [5, 6]),
        ("docker.io", [5, 6, 7]),
        ("alpine:latest", [6]),
        ("team/app", [7]),
        ("team", [7]),
        ("*/app", [8, 0, 1, 2, 3, 7]),
        ("**/app", [8, 0, 1, 2, 3, 7]),
        ("**/web:*", [3]),
        ("**", [8, 0, 1, 2, 3, 4, 5, 6, 7, 9]),
        ("[::1]:5000/app", [8]),
        ("plain", [9]),
        ("e.x/half", []),
        ("e.x/link", []),
        ("e.x/app:1.0/blobs", []),
        ("e.x/app/1.0/blobs", []),
        ("x" * 300, []),
    ],
)
def test_a_word_means_layouts(root: Path, word: str, numbers: list[int]) -> None:
    search = Search(root, [word])
    assert [str(name) for name in search] == [LAYOUTS[number] for number in numbers]
    assert search.unmatched == ([] if numbers else [word])


def test_without_words_all_is_meant(root: Path) -> None:
    assert {str(name) for name in Search(root)} == set(LAYOUTS)


def test_words_that_overlap_give_each_layout_once(root: Path) -> None:
    search = Search(root, ["e.x/app", "e.x/app:1.0", "**:1.0", "e.x/none", "e.x/app/w*"])
    assert [str(name) for name in search] == [LAYOUTS[number] for number in (0, 1, 2, 3, 4)]
    assert search.unmatched == ["e.x/none"]


@pytest.mark.parametrize("word", ["", "/", "..", "a/../b", "a//b", "/a", "a:", "a/./b", "a\nb"])
def test_other_words_are_refused(root: Path, word: str) -> None:
    with pytest.raises(InvalidContent, match="not a name"):
        Search(root, [word])


def test_one_repository_is_found_without_looking_at_others(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    scandir = os.scandir

    def watched(path: Path) -> Iterator[os.DirEntry[str]]:
        seen.append(str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", watched)
    assert len(list(Search(root, ["e.x/app-two"]))) == 1
    assert seen == [f"{root}/e.x/app-two", f"{root}/e.x/app-two/1.0"]


def test_a_pattern_is_written_as_a_path() -> None:
    assert "e.x/app/1.*" in map(str, Pattern.parse("e.x/app:1.*"))
