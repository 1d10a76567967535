"""What mount(8) says becomes what `ocistow mount` understands."""

import tomllib
from pathlib import Path

import click
import pytest

from ocistow.cli.fstab import PROGRAMS, arguments_of

ROOT = Path(__file__).parents[3]
WORDS = ("/store", "/oci")


def options_of(text: str, *flags: str) -> list[str]:
    first, second, third, *options, separator, place = arguments_of(
        "mount.ocistow", [*WORDS, *flags, "-o", text]
    )
    assert (first, second, third, separator, place) == (
        "--store=/store", "mount", "--background", "--", "/oci",
    )  # fmt: skip
    return options


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("rw", []),
        ("defaults,_netdev,nofail,noauto,x-systemd.automount,X-mount.mkdir,comment=a b", []),
        ("rw,nosuid,nodev,relatime", []),
        ("ro", ["--read-only"]),
        ("read_only", ["--read-only"]),
        ("noexec", ["--no-exec"]),
        ("uid=12,gid=13,umask=027", ["--uid=12", "--gid=13", "--umask=027"]),
        ("sub=a.example/b,engine=pyfuse3", ["--sub=a.example/b", "--engine=pyfuse3"]),
        ("allow_other,no-virtual-presence", ["--allow-other", "--no-virtual-presence"]),
        ("log_file=/var/log/a=b,fill", ["--log-file=/var/log/a=b", "--fill"]),
    ],
)
def test_options_are_those_of_the_command(text: str, options: list[str]) -> None:
    assert options_of(text) == options


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*WORDS, "-o", "ro,readonly"], "unknown mount option 'readonly'"),
        ([*WORDS, "-o", "background"], "unknown mount option 'background'"),
        ([*WORDS, "-o", "ro,status"], "unknown mount option 'status'"),
        ([*WORDS, "-o", "-v"], "unknown mount option '-v'"),
        ([*WORDS, "-o", "ro=1"], "mount option 'ro' takes no value"),
        ([*WORDS, "-o", "uid"], "mount option 'uid' needs a value"),
        (["/store"], "usage: "),
        ([*WORDS, "/more"], "usage: "),
        ([*WORDS, "-N", "1"], "option -N not recognized; usage: "),
    ],
)
def test_what_nobody_knows_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(click.ClickException) as refused:
        arguments_of("mount.ocistow", words)
    assert refused.value.message.startswith(message)


def test_what_nobody_knows_may_be_tolerated() -> None:
    assert options_of("quiet,ro,uid=3", "-s") == ["--read-only", "--uid=3"]


def test_flags_of_mount() -> None:
    assert arguments_of("mount.ocistow", [*WORDS, "-f"]) == []
    verbose = arguments_of("mount.ocistow", [*WORDS, "-n", "-v", "-t", "fuse.ocistow"])
    assert verbose == ["--verbose", "--store=/store", "mount", "--background", "--", "/oci"]


def test_the_programs_are_installed() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert set(PROGRAMS) < scripts.keys()
    assert set(scripts.values()) == {"ocistow.cli.main:main"}
