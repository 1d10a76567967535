"""Go's lifecycle and ours, started the same way: what they say, where, and how they end."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocistow.lifecycle.platform_api import PLATFORM_APIS
from ocistow.lifecycle.program import PROGRAMS

from ...unit.lifecycle.invocations import INVOCATIONS, PRIVILEGED, Invocation

Find = Callable[[str], Path]

OF_DRAFTS = {"oci", "oci-dir", "publish", "push", "exported"}
OF_OURS = {"compression", "image-digest-file", "image-refs", "jobs", "store"}
OF_REBASER = {"layout", "layout-dir"}  # Go's has no layout mode
REAL = [name for name in PROGRAMS if name != "publisher"]


def ended(
    program: Path, arguments: Sequence[str], environ: Mapping[str, str], directory: Path
) -> tuple[int, bytes, bytes]:
    done = subprocess.run(
        [program, *arguments],
        env=dict(environ),
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "invocation",
    [*INVOCATIONS, *(PRIVILEGED if os.getuid() == 0 else ())],
    ids=lambda each: each.arguments,
)
def test_a_wrong_start(invocation: Invocation, real: Find, ours: Find, tmp_path: Path) -> None:
    for name, text in invocation.files.items():
        (tmp_path / name).write_text(text)
    name, *arguments = shlex.split(invocation.arguments)
    theirs = ended(real(name), arguments, invocation.environ, tmp_path)
    assert theirs == ended(ours(name), arguments, invocation.environ, tmp_path)
    said = re.sub(rb"\x1b\[[\d;]*m", b"", theirs[1]).decode().splitlines()
    assert (theirs[0], said) == (invocation.code, list(invocation.said))


@pytest.mark.parametrize("api", PLATFORM_APIS, ids=str)
@pytest.mark.parametrize("name", REAL)
def test_the_usage_but_for_flags_of_ours(
    name: str, api: object, real: Find, ours: Find, tmp_path: Path
) -> None:
    environ = {
        "CNB_PLATFORM_API": str(api),
        "CNB_LAYOUT_DIR": "/l",
        "CNB_GROUP_ID": "-3",
        "CNB_USE_DAEMON": "1",
        "CNB_SKIP_RESTORE": "true",
        "CNB_INSECURE_REGISTRIES": "a,b",
        "CNB_APP_DIR": 'a"\x01',
    }
    theirs = ended(real(name), ["-h"], environ, tmp_path)
    code, out, err = ended(ours(name), ["-h"], environ, tmp_path)
    added = OF_DRAFTS | OF_OURS | (OF_REBASER if name == "rebaser" else set[str]())
    head, *flags = err.split(b"\n  -")
    kept = [flag for flag in flags if re.split(rb"[\s]", flag)[0].decode() not in added]
    last = b"" if kept[-1].endswith(b"\n") else b"\n"
    assert (code, out, b"\n  -".join([head, *kept]) + last) == theirs


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("flags")


_FLAGS = ["uid", "daemon", "log-level", "tag", "app", "x", "", "h", "version", "no-color"]
_VALUES = ["", "1", "0x1F", "017", "08", "1_0", "true", "T", "no", "debug", "-x", "é", "9" * 20]
_WORDS = st.one_of(
    st.builds("{}{}".format, st.sampled_from(["-", "--", "---"]), st.sampled_from(_FLAGS)),
    st.builds(
        "{}{}={}".format,
        st.sampled_from(["-", "--"]),
        st.sampled_from(_FLAGS),
        st.sampled_from(_VALUES),
    ),
    st.sampled_from(_VALUES),
)


@settings(max_examples=150)
@given(arguments=st.lists(_WORDS, max_size=4))
def test_any_command_line_is_read_as_go_does(
    arguments: list[str], real: Find, ours: Find, directory: Path
) -> None:
    # too many images are refused as soon as the flags are read
    environ = {"CNB_PLATFORM_API": "0.12"}
    code, out, err = ended(real("creator"), [*arguments, "aa", "bb", "cc"], environ, directory)
    ours_ended = ended(ours("creator"), [*arguments, "aa", "bb", "cc"], environ, directory)
    if code == 0 and b"Usage" not in err:  # each says its own version
        assert ours_ended[0] == 0
        return
    assert ours_ended[:2] == (code, out)
    assert ours_ended[2].splitlines()[:1] == err.splitlines()[:1]
