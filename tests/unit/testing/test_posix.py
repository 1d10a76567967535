"""The commands that docs/posix.md is written in."""

from pathlib import Path

import pytest

from ocistow.testing.posix import Case, Machine, cases, outcomes

PAGE = """
# rmdir

```posix
mkdir d; rmdir d  ok
```

```posix root
rmdir d; list .  ok  ENOENT
```

## Other text

```
not a case  ok
```
"""


def test_a_page_is_its_blocks() -> None:
    assert list(cases(PAGE)) == [
        Case("rmdir", "", "mkdir d; rmdir d", "ok", "ok"),
        Case("rmdir", "root", "rmdir d; list .", "ok", "ENOENT"),
    ]


@pytest.mark.parametrize(
    ("program", "outcome"),
    [
        ("mkdir d; list .", "d"),
        ("rmdir d", "ENOENT"),
        ("rmdir d; list .", "rmdir d: ENOENT"),
        ("!rmdir d; list .", "nothing"),
        ("write f text; note f; newer f", "none"),
        ("write f text; note f; append f more; newer f", "mtime,ctime"),
        (r"create n*3; create \xff; list .", r"nnn,\xff"),
        ("umask 077; create f 644; mode f", "600"),
    ],
)
def test_the_last_command_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, outcome: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Machine().run(program) == outcome


def test_each_program_has_a_directory_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert outcomes(["create f", "create f; list ."]) == {"create f": "ok", "create f; list .": "f"}
    assert len(list(tmp_path.iterdir())) == 2
