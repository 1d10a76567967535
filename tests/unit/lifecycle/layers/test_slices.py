"""The application's directory cut into layers."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from ocistow.lifecycle.layers.slices import slice_layers
from ocistow.oci.errors import InvalidContent

EMPTY = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"  # of 1024 zeros


@pytest.fixture
def app(tmp_path: Path) -> Path:
    app = tmp_path / "app"
    for name in ("a.txt", "a/x", "a/y.txt", "lib/one.jar", "lib/two.jar", ".env"):
        (app / name).parent.mkdir(parents=True, exist_ok=True)
        (app / name).write_text(name)
    (app / "out").symlink_to("..")
    return app


def cut(app: Path, *slices: Sequence[str]) -> list[list[str]]:
    """Return what each layer has of the application, `.` being its directory."""
    layers = slice_layers(app, slices, 1, 2)
    assert [layer.id for layer in layers] == [f"slice-{n + 1}" for n in range(len(slices) + 1)]
    paths = [[os.fsdecode(entry.name) for entry in layer.entries] for layer in layers]
    above = len(app.parents) - 1
    assert all(path[:above] == paths[-1][:above] for path in paths if path and paths[-1])
    return [[os.path.relpath(name, app) for name in path[above:]] for path in paths]


def test_without_slices_all_is_one_layer_in_the_order_of_paths(app: Path) -> None:
    [everything] = cut(app)
    assert everything[:6] == [".", ".env", "a", "a.txt", "a/x", "a/y.txt"]
    assert everything[6:] == ["lib", "lib/one.jar", "lib/two.jar", "out"]


def test_a_pattern_takes_no_slash_and_a_directory_all_that_is_below(app: Path) -> None:
    first, second, rest = cut(app, ["*.txt"], ["a"])
    assert first == [".", "a.txt"]
    assert second == [".", "a", "a/x", "a/y.txt"]
    assert rest == [".", ".env", "lib", "lib/one.jar", "lib/two.jar", "out"]


def test_what_is_taken_is_not_taken_again(app: Path) -> None:
    first, second, rest = cut(app, ["lib/one.jar"], ["lib/*", "out/*", "/", "../*"])
    assert first == [".", "lib", "lib/one.jar"]
    assert second == [".", "lib", "lib/two.jar"]
    assert "lib" not in rest  # nothing of it is left


def test_slices_may_be_empty(app: Path) -> None:
    layers = slice_layers(app, [["none"], ["*"], ["*"]], 1, 2)
    digests = [hashlib.sha256(layer.open().read(1 << 20)).hexdigest() for layer in layers]
    assert [digest == EMPTY for digest in digests] == [True, False, True, True]


def test_what_is_above_keeps_its_owner_and_the_rest_does_not(app: Path) -> None:
    [layer] = slice_layers(app, [], 1234, 4321)
    owners = {os.fsdecode(entry.name): (entry.uid, entry.gid) for entry in layer.entries}
    assert owners[str(app.parent)] == (os.getuid(), os.getgid())
    assert owners[str(app)] == owners[f"{app}/a/x"] == (1234, 4321)


def test_a_malformed_pattern_is_refused_where_it_is_compared(app: Path) -> None:
    message = "failed to check if '.env' matches '[a': syntax error in pattern"
    with pytest.raises(InvalidContent) as caught:
        slice_layers(app, [["[a"]], 1, 2)
    assert str(caught.value) == message
    assert cut(app, ["none*[a"])[0] == []  # as in Go: nothing is like it as far as the star
