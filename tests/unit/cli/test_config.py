from collections.abc import Mapping
from pathlib import Path

import pytest

from ocistow.cli.config import Flags, Settings, default_store, settings
from ocistow.oci.errors import InvalidContent
from ocistow.publish.access import JOBS


def write(directory: Path, text: str) -> Path:
    file = directory / "ocistow" / "config.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("environment", "root", "expected"),
    [
        ({"HOME": "/home/u"}, True, "/var/lib/ocistow"),
        ({"HOME": "/home/u"}, False, "/home/u/.local/share/ocistow"),
        ({"HOME": "/home/u", "XDG_DATA_HOME": "/data"}, False, "/data/ocistow"),
        ({"HOME": "/home/u", "XDG_DATA_HOME": "data"}, False, "/home/u/.local/share/ocistow"),
        ({"HOME": "/home/u", "XDG_DATA_HOME": ""}, False, "/home/u/.local/share/ocistow"),
    ],
)
def test_everybody_has_a_default_store(
    environment: Mapping[str, str], root: bool, expected: str
) -> None:
    assert default_store(environment, root=root) == Path(expected)


def test_without_a_file_there_are_defaults(tmp_path: Path) -> None:
    found = settings(Flags(), {"HOME": str(tmp_path)}, root=False)
    assert found == Settings(tmp_path / ".local/share/ocistow", JOBS, "auto", "text")


def test_the_users_file_is_below_the_config_home(tmp_path: Path) -> None:
    write(tmp_path, 'store = "/srv/store"\njobs = 7\nprogress = "none"\nlog-format = "json"\n')
    found = settings(Flags(), {"XDG_CONFIG_HOME": str(tmp_path)}, root=False)
    assert found == Settings(Path("/srv/store"), 7, "none", "json")


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, 'store = "/srv/store"\nlog-format = "json"\n')
    flags = Flags(config=file, store=Path("/elsewhere"), log_format="text")
    found = settings(flags, {}, root=False)
    assert (found.store, found.log_format) == (Path("/elsewhere"), "text")


def test_a_relative_flag_is_made_absolute() -> None:
    found = settings(Flags(store=Path("here")), {"HOME": "/nowhere"}, root=False)
    assert found.store == Path.cwd() / "here"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stoer = 1\njbos = 2", "unknown key 'jbos', 'stoer'"),
        ("jobs = 0", "jobs is 0"),
        ("jobs = true", "jobs is True"),
        ("jobs = 65", "jobs is 65"),
        ("jobs = '4'", "jobs is '4'"),
        ("store = 1", "store is 1"),
        ("store = 'relative'", "store is 'relative'"),
        ('store = "~\\u0000/x"', "store is .*, expected an absolute path"),
        ('store = "/\\u0000/x"', "store is .*, expected an absolute path"),
        ("progress = 'loud'", "progress is 'loud'"),
        ("progress = []", "progress is list"),
        ("log-format = 'xml'", "log-format is 'xml'"),
        ("checksums = 'yes'", "checksums is 'yes', expected true or false"),
        ("jobs =", "is not TOML"),
        ("jobs = " + "[" * 2000, "is not TOML"),
        ("jobs = 0x" + "f" * 5000, "an integer of over 64 bits"),
        ("a" * 5000 + " = 1", "unknown key 'a{200}', expected"),
        ("#" * 70_000, "has over 65536 bytes"),
    ],
)
def test_a_malformed_file_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(InvalidContent, match=said) as caught:
        settings(Flags(config=file), {}, root=False)
    assert str(file) in str(caught.value)


def test_bytes_that_are_not_text_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path, "")
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidContent, match="is not TOML"):
        settings(Flags(config=file), {}, root=False)


def test_a_file_that_was_asked_for_must_exist(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        settings(Flags(config=tmp_path / "absent"), {}, root=False)


def test_a_flag_may_name_a_home(tmp_path: Path) -> None:
    assert settings(Flags(store=Path("~root/x")), {}, root=False).store == Path("/root/x")
    file = write(tmp_path, 'store = "~nobody-here/x"')
    for flags in (Flags(store=Path("~nobody-here/x")), Flags(config=file)):
        with pytest.raises(InvalidContent) as caught:
            settings(flags, {}, root=False)
        assert str(caught.value) == "store is '~nobody-here/x', but 'nobody-here' has no home"
