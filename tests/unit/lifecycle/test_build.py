"""The builder, with buildpacks that are scripts."""

import json
from pathlib import Path

import pytest

from ocistow.lifecycle.platform_api import Code, Version
from ocistow.oci.errors import PhaseFailed
from ocistow.testing.buildpacks import Workplace

PLAN = 'cat > "$2" <<END\n{}\nEND'
LAUNCH = 'cat > "$1/launch.toml" <<END\n{}\nEND\n'
BUILD = 'cat > "$1/build.toml" <<END\n{}\nEND\n'
XY = "".join(f'[[provides]]\nname = "{n}"\n[[requires]]\nname = "{n}"\n' for n in "xy")
BILL = '[[bom]]\nname = "dep"\n[bom.metadata]\nversion = "1"\n'
OBSERVE = "env | LC_ALL=C sort > seen"


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


def refused(place: Workplace, *identifiers: str) -> tuple[int, str]:
    with pytest.raises(PhaseFailed) as caught:
        place.build(*identifiers)
    return caught.value.code, caught.value.message


def process(type: str, more: str = "") -> str:
    return f'[[processes]]\ntype = "{type}"\ncommand = ["run-{type}"]\n{more}\n'


def seen(place: Workplace) -> dict[str, str]:
    lines = (place.inputs.app_dir / "seen").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_output_of_both_streams_is_passed_on(place: Workplace) -> None:
    place.add("a", "echo out; echo err >&2; pwd")
    place.build("a")
    assert place.text.endswith(f"out\nerr\n{place.inputs.app_dir}\n")


def test_a_buildpack_is_given_its_own_directory_and_its_plan(place: Workplace) -> None:
    arguments = (
        'echo "$1 $2"; cat "$3"; env | LC_ALL=C sort > seen; test "$3" = "$CNB_BP_PLAN_PATH"'
    )
    plan = PLAN.format(XY.partition('[[provides]]\nname = "y"')[0] + "[requires.metadata]\nn = 1")
    directory = place.add("acme/a", arguments, api="0.12", detect=plan)
    place.build("acme/a")
    own = place.inputs.layers_dir / "acme_a"
    assert place.text.endswith(
        f'{own} {place.inputs.platform_dir}\n[[entries]]\n  name = "x"\n'
        "  [entries.metadata]\n    n = 1\n"
    )
    variables = seen(place)
    assert not Path(variables.pop("CNB_BP_PLAN_PATH")).exists()
    shell = ("PWD", "OLDPWD", "SHLVL", "_")
    assert {name: value for name, value in variables.items() if name not in shell} == {
        "CNB_BUILDPACK_DIR": str(directory),
        "CNB_EXEC_ENV": "production",
        "CNB_LAYERS_DIR": str(own),
        "CNB_PLATFORM_DIR": str(place.inputs.platform_dir),
        "CNB_TARGET_ARCH": "amd64",
        "CNB_TARGET_DISTRO_NAME": "debian",
        "CNB_TARGET_DISTRO_VERSION": "12",
        "CNB_TARGET_OS": "linux",
        "HOME": "/home/cnb",
        "PATH": "/usr/bin:/bin",
    }


def test_who_clears_the_environment_is_not_told_of_the_user(place: Workplace) -> None:
    place.add("a", OBSERVE, more="clear-env = true\n")
    place.platform_env({"USER_SAID": "1"})
    place.platform_env({"OPERATOR_SAID": "2"}, "build-config")
    place.build("a")
    variables = seen(place)
    assert ("USER_SAID" in variables, variables["OPERATOR_SAID"]) == (False, "2")


def test_layers_for_builds_are_seen_by_who_comes_after(place: Workplace) -> None:
    script = (
        'for l in one two three; do mkdir -p "$1/$l/bin" "$1/$l/env"\n'
        'printf $l > "$1/$l/env/L.append"\n'
        'printf "[types]\\nbuild = true\\n" > "$1/$l.toml"; done\n'
        'printf "[types]\\nlaunch = true\\n" > "$1/three.toml"\n'
        'test -z "${L-}"'
    )
    place.add("a", script)
    place.add("b", OBSERVE)
    place.build("a", "b")
    own = place.inputs.layers_dir / "a"
    variables = seen(place)
    assert variables["L"] == "onetwo"
    assert variables["PATH"] == f"{own}/two/bin:{own}/one/bin:/usr/bin:/bin"


def test_what_is_met_is_not_asked_of_who_comes_after(place: Workplace) -> None:
    tell = 'grep name "$3" || echo nothing\n'
    unmet = BUILD.format('[[unmet]]\nname = "x"')
    place.add("a", tell + unmet, detect=PLAN.format(XY))
    place.add("b", tell, detect=PLAN.format(XY))
    place.add("c", tell, detect=PLAN.format(XY))
    place.build("a", "b", "c")
    names = [
        line.strip() for line in place.text.splitlines() if "name" in line or line == "nothing"
    ]
    x, y = 'name = "x"', 'name = "y"'
    assert names == [x, x, x, y, y, y, x, x, x, "nothing"]


def test_metadata_is_what_all_of_them_say(place: Workplace) -> None:
    place.add("a", LAUNCH.format(process("web") + '[[labels]]\nkey = "k"\nvalue = "1"\n'))
    place.add(
        "b",
        LAUNCH.format(
            process("task", 'args = ["x"]\ndefault = true\nworking-dir = "/w"')
            + '[[labels]]\nkey = "k"\nvalue = "2"\n[[slices]]\npaths = ["p/*"]\n'
        ),
    )
    assert place.build("a", "b") == {
        "buildpack-default-process-type": "task",
        "buildpacks": [
            {"id": "a", "version": "1", "api": "0.10"},
            {"id": "b", "version": "1", "api": "0.10"},
        ],
        "labels": [{"key": "k", "value": "1"}, {"key": "k", "value": "2"}],
        "processes": [
            {
                "type": "task",
                "command": ["run-task"],
                "args": ["x"],
                "direct": True,
                "buildpack-id": "b",
                "working-dir": "/w",
            },
            {"type": "web", "command": ["run-web"], "direct": True, "buildpack-id": "a"},
        ],
        "slices": [{"paths": ["p/*"]}],
    }


def test_a_process_that_replaces_the_default_is_the_default_no_more(place: Workplace) -> None:
    place.add("a", LAUNCH.format(process("web", "default = true")))
    place.add("b", LAUNCH.format(process("web")))
    assert "buildpack-default-process-type" not in place.build("a", "b")
    assert (
        "Warning: redefining the following default process type with a process not marked as "
        "default: web\n"
    ) in place.text


def test_commands_are_text_before_api_0_9(place: Workplace) -> None:
    text = '[[processes]]\ntype = "web"\ncommand = "a b"\nargs = ["c"]\nworking-dir = "/w"\n'
    place.add("a", LAUNCH.format(text), api="0.7")
    assert place.build("a")["processes"] == [
        {
            "type": "web",
            "command": ["a b"],
            "args": ["c"],
            "direct": False,
            "buildpack-id": "a",
        }
    ]
    assert "process working directory isn't supported in this buildpack api version" in place.text


def test_a_layer_of_no_type_is_set_aside_in_every_build(place: Workplace) -> None:
    place.add("a", 'mkdir "$1/l"; touch "$1/l/$(ls "$1" | wc -l)" "$1/l.toml"')
    place.build("a")
    place.build("a")
    own = place.inputs.layers_dir / "a"
    assert not (own / "l").exists()
    assert len(list((own / "l.ignore").iterdir())) == 1


def test_sboms_are_collected_by_what_they_are_of(place: Workplace) -> None:
    script = "".join(
        f'printf "[types]\\n{types} = true\\n" > "$1/{types}-layer.toml"\n'
        for types in ("launch", "build", "cache")
    )
    names = ("launch", "build", "launch-layer", "build-layer", "cache-layer", "unknown")
    script += "".join(f'echo {name} > "$1/{name}.sbom.spdx.json"\n' for name in names)
    place.add("acme/a", script, more='sbom-formats = ["application/spdx+json; version=2.3"]\n')
    stale = place.inputs.layers_dir / "sbom" / "launch" / "gone"
    stale.mkdir(parents=True)
    place.build("acme/a")
    root = place.inputs.layers_dir / "sbom"
    found = {str(p.relative_to(root)): p.read_text().strip() for p in root.rglob("*.json")}
    assert found == {
        "launch/sbom.legacy.json": "null",
        "build/sbom.legacy.json": "null",
        "launch/acme_a/sbom.spdx.json": "launch",
        "build/acme_a/sbom.spdx.json": "build",
        "launch/acme_a/launch-layer/sbom.spdx.json": "launch-layer",
        "build/acme_a/build-layer/sbom.spdx.json": "build-layer",
        "build/acme_a/cache-layer/sbom.spdx.json": "cache-layer",
        "cache/acme_a/cache-layer/sbom.spdx.json": "cache-layer",
    }
    assert not stale.exists()


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (
            "cdx.json",
            "validating SBOM file '{}/launch.sbom.cdx.json' for buildpack: 'a@1': "
            "undeclared SBOM media type: 'application/vnd.cyclonedx+json'",
        ),
        ("xml.json", "unsupported SBOM file format: '{}/launch.sbom.xml.json'"),
    ],
)
def test_an_sbom_that_was_not_announced_is_refused(
    place: Workplace, form: str, message: str
) -> None:
    place.add(
        "a", f'echo > "$1/launch.sbom.{form}"', more='sbom-formats = ["application/spdx+json"]\n'
    )
    own = place.inputs.layers_dir / "a"
    assert refused(place, "a") == (Code.BUILD, f"failed to build: {message.format(own)}")


def test_an_old_bill_goes_where_the_platform_looks_for_it(place: Workplace) -> None:
    place.add("a", LAUNCH.format(BILL) + BUILD.format(BILL), more='homepage = "h"\n')
    entry = {"name": "dep", "metadata": {"version": "1"}, "buildpack": {"id": "a", "version": "1"}}
    assert "bom" not in place.build("a")
    for kind in ("launch", "build"):
        path = place.inputs.layers_dir / "sbom" / kind / "sbom.legacy.json"
        assert json.loads(path.read_text()) == [entry]
    assert place.text.count("BOM table is deprecated") == 2  # one for each file
    assert place.build("a", platform_api=Version(0, 8))["bom"] == [entry]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 7", "exit status 7"),
        ("kill -9 $$", "signal: killed"),
        ('rm "$0"; exit 1', "exit status 1"),
    ],
)
def test_a_buildpack_that_fails_ends_the_build(place: Workplace, script: str, message: str) -> None:
    place.add("a", script)
    place.add("b", "echo never")
    assert refused(place, "a", "b") == (Code.BUILDPACK_BUILD, f"failed to build: {message}")
    assert "never" not in place.text
    assert not (place.inputs.layers_dir / "config").exists()


def test_a_program_that_is_missing_is_the_buildpack_s_failure(place: Workplace) -> None:
    directory = place.add("a")
    (directory / "bin" / "build").unlink()
    assert refused(place, "a") == (
        Code.BUILDPACK_BUILD,
        f"failed to build: fork/exec {directory}/bin/build: no such file or directory",
    )


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            LAUNCH.format(process("a", "default = true") + process("b", "default = true")),
            "multiple default process types aren't allowed",
        ),
        (
            LAUNCH.format(process("a", "direct = true")),
            "process.direct is not supported on this buildpack version",
        ),
        (BUILD.format("[[unmet]]"), "unmet.name is required"),
        (
            BUILD.format('[[unmet]]\nname = "z"'),
            "unmet.name 'z' must match a requested dependency",
        ),
        (
            LAUNCH.format('[[bom]]\nname = "dep"\nversion = "1"'),
            "bom entry 'dep' has a top level version which is not allowed. "
            "The buildpack should instead set metadata.version",
        ),
        (
            'echo "launch = true" > "$1/l.toml"',
            "failed to process buildpack layer: failed to decode layer metadata file: "
            "the launch, cache and build flags should be in the types table of {}/l.toml",
        ),
    ],
)
def test_what_a_buildpack_must_not_write_is_refused(
    place: Workplace, script: str, message: str
) -> None:
    place.add("a", script)
    own = place.inputs.layers_dir / "a"
    assert refused(place, "a") == (Code.BUILD, f"failed to build: {message.format(own)}")


def test_files_of_variables_are_named_when_they_cannot_be_read(place: Workplace) -> None:
    types = 'printf "[types]\\nbuild = true\\n" > "$1/l.toml"'
    place.add("a", f'mkdir -p "$1/l/env"; ln -s nowhere "$1/l/env/X"; {types}')
    code, message = refused(place, "a")
    assert code == Code.BUILD
    own = place.inputs.layers_dir / "a" / "l" / "env"
    assert message.startswith(f"failed to build: apply env files from dir '{own}': {own}/X: ")


@pytest.mark.parametrize(
    ("group", "plan", "code", "message"),
    [
        (None, "", Code.FAILED, "failed to read group file: open {}/group.toml: no such file"),
        ("", None, Code.FAILED, "failed to read plan file: open {}/plan.toml: no such file"),
        (
            '[[group]]\nid = "a"\nversion = "1"\napi = "0.6"',
            "",
            Code.BUILDPACK_API,
            "failed to set API for Buildpack 'a@1': buildpack API version '0.6' is incompatible",
        ),
        (
            '[[group-extensions]]\nid = "e"\nversion = "1"',
            "",
            Code.BUILD,
            "failed to build: group contains extensions which is not supported by the builder",
        ),
        (
            '[[group]]\nid = ".."\nversion = "1"\napi = "0.10"',
            "",
            Code.BUILD,
            "failed to build: '..@1' names no directory of one buildpack",
        ),
        (
            '[[group]]\nid = "config"\nversion = "1"\napi = "0.10"',
            "",
            Code.BUILD,
            "failed to build: 'config' is no identifier of a buildpack",
        ),
    ],
)
def test_what_the_detector_left_is_not_trusted(
    place: Workplace, group: str | None, plan: str | None, code: int, message: str
) -> None:
    place.add("config")
    for name, text in (("group", group), ("plan", plan)):
        if text is not None:
            (place.inputs.layers_dir / f"{name}.toml").write_text(text)
    found, words = refused(place)
    assert found == code
    assert words.startswith(message.format(place.inputs.layers_dir))
