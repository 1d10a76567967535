"""The detector, with buildpacks that are scripts."""

import os
import pickle
import select
import subprocess
import sys
import tomllib
from contextlib import suppress
from pathlib import Path

import pytest

from ocistow.lifecycle.platform_api import Code, Version
from ocistow.oci.errors import PhaseFailed
from ocistow.testing.buildpacks import Workplace

PLAN = 'cat > "$2" <<END\n{}\nEND'


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


def refused(place: Workplace, **changes: object) -> tuple[int, str]:
    with pytest.raises(PhaseFailed) as caught:
        place.detect(**changes)
    return caught.value.code, caught.value.message


def test_group_and_plan_are_written(place: Workplace) -> None:
    place.add("acme/a", detect=PLAN.format('[[provides]]\nname = "x"'), more='homepage = "h"\n')
    place.add("b", detect=PLAN.format('[[requires]]\nname = "x"\n[requires.metadata]\nn = 1'))
    place.order("acme/a b")
    assert place.detect() == "acme/a b"
    layers = place.inputs.layers_dir
    assert tomllib.loads((layers / "group.toml").read_text()) == {
        "group": [
            {"id": "acme/a", "version": "1", "api": "0.10", "homepage": "h"},
            {"id": "b", "version": "1", "api": "0.10"},
        ]
    }
    assert tomllib.loads((layers / "plan.toml").read_text()) == {
        "entries": [
            {
                "providers": [{"id": "acme/a", "version": "1"}],
                "requires": [{"name": "x", "metadata": {"n": 1}}],
            }
        ]
    }
    assert place.text == "acme/a 1\nb      1\n"


def test_all_of_a_group_run_at_the_same_time(place: Workplace) -> None:
    """Each waits for the other, through a FIFO."""
    os.mkfifo(place.inputs.app_dir / "fifo")
    place.add("a", detect="echo x > fifo")
    place.add("b", detect="read x < fifo")
    place.order("a b")
    assert place.detect() == "a b"


def test_none_runs_twice(place: Workplace) -> None:
    place.add("a", detect="echo a >> runs")
    place.add("b", detect="exit 100")
    place.order("a b", "a")
    assert place.detect() == "a"
    assert (place.inputs.app_dir / "runs").read_text() == "a\n"


def test_output_is_told_only_when_nothing_was_detected(place: Workplace) -> None:
    place.add("a", detect="echo hello; exit 100")
    place.order("a")
    assert refused(place) == (
        Code.NOT_DETECTED,
        "failed to detect: no buildpacks participating",
    )
    words = "No buildpack groups passed detection."
    more = "Please check that you are running against the correct path."
    error = "\x1b[31;1mERROR: \x1b[0m"
    assert place.text == (
        "======== Output: a@1 ========\nhello\n======== Results ========\nfail: a@1\n"
        f"{error}{words}\n{error}{more}\n"
    )


@pytest.mark.parametrize(
    ("script", "shown"),
    [
        ("exit 3", "err:  a@1 (3)\n"),
        ("kill -9 $$", "err:  a@1\n"),
        (PLAN.format("x"), "plan.toml is not TOML"),
        ('rm "$2"', "plan.toml: no such file or directory\n"),
        (
            PLAN.format('[[requires]]\nname = "x"\nversion = "1"'),
            'buildpack a has a "version" key which is not supported. '
            '"metadata.version" should be used instead\n',
        ),
    ],
)
def test_an_error_of_a_buildpack_has_its_own_status(
    place: Workplace, script: str, shown: str
) -> None:
    place.add("a", detect=script)
    place.order("a")
    assert refused(place) == (
        Code.NOT_DETECTED_AND_ERROR,
        "failed to detect: buildpack(s) failed with err",
    )
    assert shown in place.text
    assert "correct path" not in place.text


def test_what_cannot_run_is_an_error_of_the_buildpack(place: Workplace) -> None:
    directory = place.add("a")
    (directory / "bin" / "detect").chmod(0o644)
    place.order("a")
    assert refused(place)[0] == Code.NOT_DETECTED_AND_ERROR
    assert f"fork/exec {directory}/bin/detect: permission denied\n" in place.text


def test_a_buildpack_for_another_target_fails_unless_it_is_optional(place: Workplace) -> None:
    place.add("a", more='[[targets]]\nos = "linux"\narch = "arm64"\n')
    place.order("a")
    assert refused(place)[0] == Code.NOT_DETECTED_AND_ERROR
    assert (
        "unable to satisfy target os/arch constraints; "
        'run image: {"os":"linux","arch":"amd64","distro":{"name":"debian","version":"12"}}, '
        'buildpack: [{"os":"linux","arch":"arm64"}]\n'
    ) in place.text
    assert place.detect(platform_api=Version(0, 11)) == "a"
    place.order("a?")
    assert place.detect() == "a"


def test_who_is_not_for_the_execution_environment_is_left_out(place: Workplace) -> None:
    place.add("a", api="0.12", more='exec-env = ["test"]\n')
    place.add("b", api="0.12", more='exec-env = ["*"]\n')
    place.add("c", api="0.11", more='exec-env = ["test"]\n')
    place.order("a b c")
    assert place.detect(platform_api=Version(0, 15)) == "b c"
    assert place.detect(platform_api=Version(0, 15), exec_env="test") == "a b c"
    assert place.detect() == "a b c"


def test_variables(place: Workplace) -> None:
    seen = "env | LC_ALL=C sort | grep -v ^PWD= > seen-$CNB_EXEC_ENV"
    directory = place.add("a", api="0.12", detect=seen)
    place.order("a")
    place.platform_env({"USER_SAID": "1", "PATH": "/mine"})
    place.platform_env({"OPERATOR_SAID": "2", "USER_SAID": "2"}, "build-config")
    place.detect()
    lines = (place.inputs.app_dir / "seen-production").read_text().splitlines()
    lines = [line for line in lines if not line.startswith(("SHLVL=", "_=", "OLDPWD="))]
    plan = next(line for line in lines if line.startswith("CNB_BUILD_PLAN_PATH="))
    assert plan.endswith("/plan.toml")
    assert [line for line in lines if line != plan] == [
        f"CNB_BUILDPACK_DIR={directory}",
        "CNB_EXEC_ENV=production",
        f"CNB_PLATFORM_DIR={place.inputs.platform_dir}",
        "CNB_TARGET_ARCH=amd64",
        "CNB_TARGET_DISTRO_NAME=debian",
        "CNB_TARGET_DISTRO_VERSION=12",
        "CNB_TARGET_OS=linux",
        "HOME=/home/cnb",
        "OPERATOR_SAID=2",
        "PATH=/mine:/usr/bin:/bin",
        "USER_SAID=1",
    ]
    assert not Path(plan.partition("=")[2]).exists()


def test_the_system_s_buildpacks_take_part(place: Workplace) -> None:
    for name in ("a", "s", "t"):
        place.add(name)
    place.order("a")
    (place.root / "system.toml").write_text(
        '[[system.pre.buildpacks]]\nid = "s"\nversion = "1"\n'
        '[[system.post.buildpacks]]\nid = "t"\nversion = "1"\n'
    )
    assert place.detect(platform_api=Version(0, 15)) == "s a t"
    assert place.detect(platform_api=Version(0, 14)) == "a"


def test_extensions_that_do_not_take_part_do_no_harm(place: Workplace) -> None:
    place.add("a")
    place.add("e", kind="extension", detect="exit 100")
    place.order("a", extensions="e")
    assert place.detect() == "a"


@pytest.mark.parametrize("has_program", [True, False])
def test_extensions_that_take_part_are_refused(place: Workplace, has_program: bool) -> None:
    place.add("a")
    directory = place.add("e", kind="extension")
    if not has_program:
        (directory / "bin" / "detect").unlink()
    place.order("a", extensions="e")
    assert refused(place) == (
        Code.DETECT,
        "failed to detect: detected order contains extensions "
        "which is not supported by the detector",
    )


def test_an_extension_requires_nothing(place: Workplace) -> None:
    place.add("a")
    place.add("e", kind="extension", detect=PLAN.format('[[requires]]\nname = "x"'))
    place.order("a", extensions="e")
    assert place.detect() == "a"
    assert 'extension e outputs "requires" which is not allowed\n' in place.text


def test_an_extension_without_programs_has_its_plan_beside_it(place: Workplace) -> None:
    place.add("a", detect=PLAN.format('[[requires]]\nname = "x"'))
    directory = place.add("e", kind="extension")
    (directory / "bin" / "detect").unlink()
    (directory / "detect").mkdir()
    (directory / "detect" / "plan.toml").write_text('[[provides]]\nname = "x"\n')
    place.order("a", extensions="e")
    assert refused(place)[0] == Code.DETECT  # and not NOT_DETECTED


@pytest.mark.parametrize(
    ("order", "code", "message"),
    [
        (None, Code.FAILED, "reading order: failed to read order file: open {}: no such file"),
        ("x", Code.FAILED, "reading order: failed to read order file: {} is not TOML"),
        (
            '[[order]]\n[[order.group]]\nid = "a"\nversion = "1"\n',
            Code.FAILED,
            "open {}/buildpacks/a/1/buildpack.toml: no such file",
        ),
    ],
)
def test_what_is_missing_or_malformed_ends_it_at_once(
    place: Workplace, order: str | None, code: int, message: str
) -> None:
    path = place.root / "order.toml"
    if order is not None:
        path.write_text(order)
    found, words = refused(place)
    named = path if "{}/" not in message else place.root
    assert found == code
    assert words.startswith(f"failed to initialize detector: {message.format(named)}")


def test_what_is_missing_in_a_composite_ends_it_when_it_is_reached(place: Workplace) -> None:
    place.add("c", more='[[order]]\n[[order.group]]\nid = "a"\nversion = "1"\n')
    place.order("c")
    code, words = refused(place)
    assert (code, words.startswith("failed to detect: open ")) == (Code.DETECT, True)


def test_what_still_runs_ends_with_the_detector(place: Workplace) -> None:
    place.add("a", detect='echo $$ > pid; cat "$0" > fifo; exec sleep 60')
    os.mkfifo(place.inputs.app_dir / "fifo")
    place.order("a")
    command = [
        sys.executable,
        "-c",
        "import pickle, sys\n"
        "from ocistow.cli.signals import ending_soon\n"
        "from ocistow.lifecycle.detect import detect\n"
        "from ocistow.lifecycle.console import Console\n"
        "with ending_soon():\n"
        "    detect(pickle.loads(sys.stdin.buffer.read()), Console(sys.stdout.buffer))\n",
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        process.stdin.write(pickle.dumps(place.inputs))
        process.stdin.close()
        (place.inputs.app_dir / "fifo").read_bytes()  # it runs now
        process.terminate()
        assert process.wait(60) != 0
    with suppress(ProcessLookupError):  # it is gone, or its last moment is not over
        left = os.pidfd_open(int((place.inputs.app_dir / "pid").read_text()))
        with open(left, "rb"):
            assert select.select([left], [], [], 30)[0]
