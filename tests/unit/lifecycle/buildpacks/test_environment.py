"""Which variables a buildpack sees."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocistow.lifecycle.buildpacks.environment import (
    MAX_VARIABLE,
    Action,
    Change,
    changed,
    of_buildpack,
    passed_through,
    read_changes,
    with_layer,
    with_platform,
)
from ocistow.oci.errors import InvalidContent

NAMES = st.sampled_from(["PATH", "CPATH", "A", "B"])
VALUES = st.text("ab:/", max_size=3)
VARIABLES = st.dictionaries(NAMES, VALUES)
CHANGES = st.lists(
    st.builds(Change, NAMES, st.sampled_from(Action), VALUES, st.none() | VALUES), max_size=5
)


def write(directory: Path, **files: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (directory / name.replace("__", ".")).write_text(value)
    return directory


def test_only_known_variables_are_passed_through() -> None:
    environ = {"HOME": "/home/cnb", "http_proxy": "p", "PATH": "/bin", "LIBRARY_PATH": "/lib"}
    secrets = {"CNB_REGISTRY_AUTH": "{}", "CNB_PLATFORM_API": "0.12", "USER": "cnb", "home": "/"}
    assert passed_through({**environ, **secrets}) == environ


@pytest.mark.parametrize(
    ("action", "delimiter", "old", "expected"),
    [
        (Action.OVERRIDE, ":", "old", "new"),
        (Action.DEFAULT, ":", "old", "old"),
        (Action.DEFAULT, ":", "", "new"),
        (Action.DEFAULT, ":", None, "new"),
        (Action.PREPEND, ":", "old", "new:old"),
        (Action.PREPEND, None, "old", "newold"),
        (Action.PREPEND, ":", "", "new"),
        (Action.APPEND, ":", "old", "old:new"),
        (Action.APPEND, None, "old", "oldnew"),
        (Action.APPEND, ":", None, "new"),
        (Action.PREPEND_PATH, None, "old", "new:old"),
        (Action.PREPEND_PATH, ";", "old", "new;old"),
        (Action.PREPEND_PATH, None, None, "new"),
    ],
)
def test_a_suffix_says_what_becomes_of_the_old_value(
    action: Action, delimiter: str | None, old: str | None, expected: str
) -> None:
    before = {} if old is None else {"A": old}
    assert changed(before, [Change("A", action, "new", delimiter)]) == {"A": expected}


def test_files_are_changes_by_their_names(tmp_path: Path) -> None:
    env = write(
        tmp_path,
        PLAIN="1",
        LIST__append="2",
        LIST__delim=", ",
        PATH__="3",
        OTHER__unknown="4",
        OTHER__prepend__twice="5",
    )
    (env / "directory").mkdir()
    (env / "..data").symlink_to("directory")
    assert list(read_changes(env, Action.OVERRIDE)) == [
        Change("LIST", Action.APPEND, "2", ", "),
        Change("PATH", Action.PREPEND_PATH, "3"),
        Change("PLAIN", Action.OVERRIDE, "1"),
    ]
    assert list(read_changes(tmp_path / "absent", Action.OVERRIDE)) == []


def test_a_value_is_kept_to_the_byte(tmp_path: Path) -> None:
    (tmp_path / "A").write_bytes(b"\xff line\n")
    [change] = read_changes(tmp_path, Action.OVERRIDE)
    assert os.fsencode(change.value) == b"\xff line\n"


def test_links_to_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("1")
    env = write(tmp_path / "env")
    (env / "A").symlink_to("../elsewhere")
    assert list(read_changes(env, Action.DEFAULT)) == [Change("A", Action.DEFAULT, "1")]


def test_what_cannot_be_a_variable_is_refused(tmp_path: Path) -> None:
    for name, value in (("large", b"x" * MAX_VARIABLE), ("nul", b"a\0b")):
        env = write(tmp_path / name)
        (env / "A").write_bytes(value)
        with pytest.raises(InvalidContent, match=r"/A "):
            list(read_changes(env, Action.OVERRIDE))


def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "A")
    with pytest.raises(InvalidContent, match="is not a regular file"):
        list(read_changes(tmp_path, Action.OVERRIDE))


def test_search_paths_of_the_platform_come_first() -> None:
    variables = with_platform({"PATH": "/bin", "A": "old"}, [("PATH", "/my"), ("A", "new")])
    assert variables == {"PATH": "/my:/bin", "A": "new"}


def test_the_operator_fills_in_what_the_user_left_open(tmp_path: Path) -> None:
    platform, config = tmp_path / "platform", tmp_path / "config"
    write(platform / "env", A="user", C="user")
    write(config / "env", A="operator", B="operator", C__override="operator")
    assert of_buildpack({}, config, platform) == {"A": "user", "B": "operator", "C": "operator"}
    assert of_buildpack({}, config, None) == {"A": "operator", "B": "operator", "C": "operator"}


def test_a_layer_adds_its_directories_then_its_files(tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    for directory in ("bin", "lib", "include", "pkgconfig", "share"):
        (layer / directory).mkdir(parents=True)
    write(layer / "env", A="env", PATH__append=":/late")
    write(layer / "env.build", A__append="+build")
    write(layer / "env.launch", A="launch")
    assert with_layer({"PATH": "/bin", "A": "old"}, layer) == {
        "A": "env+build",
        "PATH": f"{layer}/bin:/bin:/late",
        "LD_LIBRARY_PATH": f"{layer}/lib",
        "LIBRARY_PATH": f"{layer}/lib",
        "CPATH": f"{layer}/include",
        "PKG_CONFIG_PATH": f"{layer}/pkgconfig",
    }


@given(VARIABLES, CHANGES)
def test_a_change_concerns_its_own_variable_alone(
    variables: dict[str, str], changes: list[Change]
) -> None:
    after = changed(variables, changes)
    for name in set(after) | set(variables):
        own = [change for change in changes if change.name == name]
        alone = changed({k: v for k, v in variables.items() if k == name}, own)
        assert after.get(name) == alone.get(name)


@given(VARIABLES, CHANGES)
def test_nothing_is_lost_but_by_an_override(
    variables: dict[str, str], changes: list[Change]
) -> None:
    kept = [change for change in changes if change.action is not Action.OVERRIDE]
    after = changed(variables, kept)
    assert all(value in after[name] for name, value in variables.items())


@given(VARIABLES, CHANGES)
def test_defaults_given_twice_are_defaults_given_once(
    variables: dict[str, str], changes: list[Change]
) -> None:
    defaults = [change for change in changes if change.action is Action.DEFAULT]
    once = changed(variables, defaults)
    assert changed(once, defaults) == once
