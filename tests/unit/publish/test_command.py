import contextlib
from collections.abc import Iterator

import pytest

from ocistow.oci.errors import InvalidContent, RegistryError, RegistryUnavailable
from ocistow.publish.command import Command

MANY = 4 << 20  # bytes; more than any pipe holds


def shell(script: str, timeout: float = 60.0) -> Command:
    return Command(("sh", "-c", script, "sh"), "the shell", timeout)


def test_what_it_says_and_is_given() -> None:
    assert shell('cat; echo "$1"').run("more", feed=[b"a", b"", b"b\n"]) == b"ab\nmore\n"
    assert shell("cat").run() == b""


def test_neither_waits_for_the_other() -> None:
    said = shell("cat; cat /dev/zero | head -c 1000000 >&2").run(feed=[bytes(MANY)] * 2)
    assert len(said) == 2 * MANY


def test_its_environment_has_more() -> None:
    command = Command(("sh", "-c", "echo $MORE"), "the shell", 20.0, {"MORE": "here"})
    assert command.run() == b"here\n"


def test_the_last_line_says_why_it_failed() -> None:
    with pytest.raises(RegistryError) as raised:
        shell("echo no; echo first >&2; printf 'ctr: last\\033[m\\n\\n' >&2; exit 3").run()
    assert str(raised.value) == "the shell: ctr: last [m"
    with pytest.raises(RegistryError, match="the shell: it failed"):
        shell("exit 1").run()


def test_it_need_not_take_all_it_is_given() -> None:
    assert shell("exec <&-; echo enough").run(feed=[bytes(MANY)] * 3) == b"enough\n"
    with pytest.raises(RegistryError, match="full"):
        shell("head -c 1 >/dev/null; echo full >&2; exit 1").run(feed=[bytes(MANY)] * 3)


@pytest.mark.parametrize("script", ["exec sleep 60", "exec >&- 2>&-; exec sleep 60"])
def test_it_is_killed_when_it_is_silent(script: str) -> None:
    with pytest.raises(RegistryUnavailable, match="no answer came in time"):
        shell(script, 0.1).run(feed=[bytes(MANY)])


def test_it_is_killed_when_it_never_ends_speaking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocistow.publish.command.MAX_OUTPUT", 1 << 20)
    with pytest.raises(InvalidContent, match="over 1048576 bytes"):
        shell("exec cat /dev/zero").run()


def test_what_its_input_raises_ends_it() -> None:
    def broken() -> Iterator[bytes]:
        yield b"some"
        raise InvalidContent("broken")

    with pytest.raises(InvalidContent, match="broken"):
        shell("cat; exec sleep 60").run(feed=broken())


def test_a_program_that_is_not_there() -> None:
    command = Command(("no-such-program",), "somebody", 20.0)
    for ask in (command.run, command.open):
        with pytest.raises(RegistryError, match="the program 'no-such-program' is not on PATH"):
            ask()


def test_its_output_is_a_stream() -> None:
    with contextlib.closing(shell("head -c 3000000 /dev/zero").open()) as stream:
        size = 0
        while data := stream.read(10_000):
            assert len(data) <= 10_000
            size += len(data)
    assert size == 3_000_000
    with contextlib.closing(shell("exec cat /dev/zero").open()) as stream:
        assert stream.read(5) == bytes(5)


def test_a_stream_fails_at_its_end() -> None:
    with pytest.raises(RegistryError, match="the shell: gone"):
        shell("echo gone >&2; exit 1").open()
    with contextlib.closing(shell("echo x; echo lost >&2; exit 1").open()) as stream:
        assert stream.read(2) == b"x\n"
        with pytest.raises(RegistryError, match="the shell: lost"):
            stream.read(2)


@pytest.mark.parametrize("script", ["exec sleep 60", "exec >&-; exec sleep 60"])
def test_a_silent_stream_is_given_up(script: str) -> None:
    with pytest.raises(RegistryUnavailable, match="no answer came in time"):
        shell(script, 0.1).open()
