import subprocess

import pytest

from ocistow.store.processes import is_alive, this_process


def test_this_process_is_alive() -> None:
    assert is_alive(this_process())


def test_a_process_that_ended_is_not() -> None:
    boot, namespace, _, start = this_process().split("/")
    with subprocess.Popen(["true"]) as process:
        process.wait()
        assert not is_alive(f"{boot}/{namespace}/{process.pid}/{start}")


def test_nobody_can_tell_of_another_container() -> None:
    boot, _, pid, start = this_process().split("/")
    assert is_alive(f"{boot}/1/{pid}/{start}")
    assert not is_alive(f"other{boot}/1/{pid}/{start}")


@pytest.mark.parametrize("name", ["", "x", "boot/0/1", "boot/1/notanumber/1", "a/b"])
def test_a_name_of_nobody_is_not_alive(name: str) -> None:
    assert not is_alive(name)
