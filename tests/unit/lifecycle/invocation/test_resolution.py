"""What flags and environment come to, and what the drafts refuse."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import pytest

from ocistow.lifecycle.console import Console
from ocistow.lifecycle.golang.flags import parse
from ocistow.lifecycle.inputs import Inputs
from ocistow.lifecycle.invocation.arguments import ARGUMENTS, Phase, flags_of
from ocistow.lifecycle.invocation.resolution import inputs_of
from ocistow.lifecycle.invocation.validation import validated
from ocistow.lifecycle.platform_api import PLATFORM_APIS, Version
from ocistow.lifecycle.reference import BEGIN, replaced
from ocistow.oci.errors import PhaseFailed

DIGEST = f"sha256:{'a' * 64}"
MULTIPLE = "failed to resolve inputs: exporting to multiples target is not allowed"


def resolved(
    phase: Phase, *arguments: str, api: str = "0.12", environ: Mapping[str, str] = {}
) -> Inputs:
    """Return the inputs of a phase."""
    return resolved_aloud(phase, *arguments, api=api, environ=environ)[0]


def resolved_aloud(
    phase: Phase, *arguments: str, api: str = "0.12", environ: Mapping[str, str] = {}
) -> tuple[Inputs, list[str]]:
    """Return also what was said; registries let everything be read but what has `denied`."""
    version = Version.parse(api)
    parsed = parse(flags_of(phase, version, environ), arguments)
    inputs, deprecated = inputs_of(phase, version, parsed, environ)
    said = io.BytesIO()
    console = Console(said)
    console.color = False
    inputs = validated(phase, inputs, deprecated, console, lambda image: "denied" not in image)
    return inputs, said.getvalue().decode().splitlines()


def refused(phase: Phase, *arguments: str, code: int = 3, environ: Mapping[str, str] = {}) -> str:
    with pytest.raises(PhaseFailed) as failed:
        resolved(phase, *arguments, environ=environ)
    assert failed.value.code == code
    return str(failed.value)


def test_nothing_said_means_the_defaults_of_inputs() -> None:
    inputs = resolved(Phase.DETECT, "-layers", "/layers")
    assert inputs == Inputs(Version(0, 12))


def test_flags_beat_the_environment_which_beats_defaults() -> None:
    more = {"CNB_USER_ID": "7", "CNB_GROUP_ID": "x", "CNB_CACHE_DIR": "c", "CNB_USE_DAEMON": "t"}
    inputs = resolved(
        Phase.CREATE, "-uid", "8", "-daemon=0", "-run-image", "run", "app", environ=more
    )
    assert (inputs.uid, inputs.gid, inputs.daemon) == (8, 0, False)
    assert inputs.cache_dir == Path.cwd() / "c"
    assert (inputs.image, inputs.previous_image, inputs.run_image) == ("app", "app", "run")


def test_lists_come_from_the_environment_and_grow_by_flags() -> None:
    more = {"CNB_INSECURE_REGISTRIES": "a,b"}
    flags = ["-insecure-registry", "c", "-tag", "x1", "-tag=x2", "-run-image", "run", "app"]
    inputs = resolved(Phase.ANALYZE, *flags, api="0.13", environ=more)
    assert inputs.insecure_registries == ("a", "b", "c")
    assert inputs.references == ("app", "x1", "x2")


@pytest.mark.parametrize(
    ("layers", "group", "layers_dir"),
    [
        ("/l//m/../n", "/l/m/../n/group.toml", "/l/n"),
        ("rel", "rel/group.toml", "rel"),
        ("", "group.toml", "."),
    ],
)
def test_files_lie_in_the_layers_directory(
    layers: str, group: str, layers_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    inputs = resolved(Phase.DETECT, "-layers", layers)
    assert inputs.group_path == Path(group)
    assert inputs.layers_dir == tmp_path / layers_dir


def test_a_path_of_the_environment_may_name_the_layers_directory_too() -> None:
    more = {"CNB_PLAN_PATH": "/x<layers>/y<layers>"}
    assert resolved(Phase.BUILD, "-layers", "/l", environ=more).plan_path == Path("/x/l/y<layers>")


def test_the_order_is_that_of_the_layers_directory_if_there_is_one(tmp_path: Path) -> None:
    arguments = ["-layers", str(tmp_path)]
    assert resolved(Phase.DETECT, *arguments).order_path == Path("/cnb/order.toml")
    (tmp_path / "order.toml").touch()
    assert resolved(Phase.DETECT, *arguments).order_path == tmp_path / "order.toml"
    assert resolved(Phase.DETECT, "-order", "/none").order_path == Path("/none")


@pytest.mark.parametrize(
    ("flags", "environ", "directory", "by_draft"),
    [
        (["-oci"], {}, "/oci", True),
        (["-oci", "-oci-dir", "/o/../x"], {}, "/x", True),
        (["-oci", "-layout-dir", "/l"], {}, "/l", True),
        (["-oci"], {"CNB_OCI_PATH": "/o"}, "/o", True),
        (["-oci"], {"CNB_OCI_PATH": "/o", "CNB_LAYOUT_DIR": "/l"}, "/l", True),
        ([], {"CNB_USE_OCI": "true"}, "/oci", True),
        (["-layout"], {}, "/oci", False),
        (["-layout", "-layout-dir", "l/"], {}, "l", False),
        (["-layout"], {"CNB_USE_OCI": "1"}, "/oci", False),
        ([], {"CNB_USE_LAYOUT": "1", "CNB_USE_OCI": "1", "CNB_LAYOUT_DIR": "/l"}, "/l", False),
        (["-oci"], {"CNB_USE_LAYOUT": "1"}, "/oci", True),
        (["-oci=false"], {"CNB_USE_LAYOUT": "1"}, None, False),
        (["-layout=false"], {"CNB_USE_OCI": "1"}, None, False),
        ([], {"CNB_USE_LAYOUT": "no", "CNB_USE_OCI": "1"}, None, False),
        ([], {"CNB_OCI_PATH": "/o"}, None, False),
    ],
)
def test_layout_mode_in_both_spellings(
    flags: list[str], environ: Mapping[str, str], directory: str | None, by_draft: bool
) -> None:
    more = {"CNB_EXPERIMENTAL_MODE": "quiet", **environ}
    inputs = resolved(Phase.ANALYZE, *flags, "-run-image", "run", "app", environ=more)
    assert inputs.layout == (directory is not None)
    assert inputs.layout_dir == (Path(directory) if directory else None)
    assert inputs.by_draft == by_draft


@pytest.mark.parametrize("phase", [Phase.ANALYZE, Phase.CREATE])
def test_the_draft_wants_to_be_told_the_run_image(phase: Phase) -> None:
    wanted = "failed to resolve inputs: -run-image is required when OCI feature is enabled"
    assert refused(phase, "-oci", "app") == wanted
    assert refused(phase, "app", environ={"CNB_USE_OCI": "true"}) == wanted


@pytest.mark.parametrize("phase", [Phase.ANALYZE, Phase.EXPORT, Phase.CREATE, Phase.REBASE])
def test_the_draft_allows_one_target(phase: Phase) -> None:
    assert refused(phase, "-oci", "-daemon", "app") == MULTIPLE
    assert refused(phase, "-daemon", "app", environ={"CNB_USE_OCI": "true"}) == MULTIPLE
    assert refused(phase, "-oci", "-publish", "app") == MULTIPLE
    assert refused(phase, "-publish", "-daemon", "app") == MULTIPLE
    assert refused(phase, "-publish", "app", environ={"CNB_USE_LAYOUT": "1"}) == MULTIPLE
    assert refused(Phase.RESTORE, "-oci", "-daemon") == MULTIPLE


def test_the_publisher_reads_a_layout_and_writes_to_one_target() -> None:
    inputs = resolved(Phase.PUBLISH, "-daemon", "-oci-dir", "/o", "app", "app:1")
    assert (inputs.layout, inputs.layout_dir, inputs.daemon) == (True, Path("/o"), True)
    assert inputs.references == ("app", "app:1")
    assert refused(Phase.PUBLISH, "-daemon", "-publish", "app") == MULTIPLE
    required = "failed to parse arguments: at least one image argument is required"
    assert refused(Phase.PUBLISH) == required


def test_the_shipped_spelling_takes_the_layout_and_leaves_the_daemon() -> None:
    more = {"CNB_EXPERIMENTAL_MODE": "silent"}
    flags = ["-layout", "-daemon", "-run-image", "run", "app"]
    inputs, said = resolved_aloud(Phase.ANALYZE, *flags, environ=more)
    assert (inputs.layout, inputs.daemon) == (True, False)
    assert said == [
        "Warning: Ignoring -daemon, since images are exported to OCI layout format",
        "Warning: Platform requested experimental feature 'export to OCI layout format'",
    ]


@pytest.mark.parametrize("phase", [Phase.ANALYZE, Phase.CREATE, Phase.REBASE])
def test_only_the_shipped_spelling_is_experimental(phase: Phase) -> None:
    disabled = "experimental features are disabled by CNB_EXPERIMENTAL_MODE=error"
    assert refused(phase, "-layout", "-run-image", "run", "app", code=1) == disabled
    assert resolved(phase, "-oci", "-run-image", "run", "app").layout
    assert resolved(Phase.RESTORE, "-layout").layout


def test_the_draft_s_exporter_may_be_told_the_run_image(tmp_path: Path) -> None:
    analyzed = tmp_path / "analyzed.toml"
    analyzed.write_text(f'[run-image]\nreference = "/Elsewhere/run/latest@{DIGEST}"\n')
    flags = ["-oci", "-analyzed", str(analyzed)]
    assert resolved(Phase.EXPORT, *flags, "-run-image", "cnb/run", "app").run_image == "cnb/run"
    assert resolved(Phase.EXPORT, *flags, "app", environ={"CNB_RUN_IMAGE": "x"}).run_image.endswith(
        DIGEST
    )


@pytest.mark.parametrize("name", ["a/../b", "../../etc", "aa:..", "localhost/../x", "/oci/../x"])
def test_no_name_leaves_the_layout_directory(name: str) -> None:
    assert "failed to resolve inputs: " in refused(Phase.ANALYZE, "-oci", "-run-image", "run", name)
    assert ".." in refused(Phase.ANALYZE, "-oci", "-run-image", name, "app")
    assert ".." in refused(Phase.ANALYZE, "-oci", "-run-image", "run", "-tag", name, "app")
    assert ".." in refused(Phase.PUBLISH, "app", name)


@pytest.mark.parametrize("bad", ["gzip:", "gzip:10", "lz4", "zstd:", "", "GZIP"])
def test_compressions_are_known(bad: str) -> None:
    for good in ("gzip", "gzip:9", "zstd", "none"):
        flags = [f"--compression={good}", "-oci", "-run-image", "run", "app"]
        assert resolved(Phase.CREATE, *flags).compression == good
    assert "is no compression" in refused(Phase.CREATE, f"-compression={bad}", "-oci", "app")


def test_what_makes_no_sense_is_refused() -> None:
    for jobs in ("-1", "65", "1000000000"):
        assert "-jobs" in refused(Phase.EXPORT, "-jobs", jobs, "app")
    assert "-push" in refused(Phase.CREATE, "-push", "-run-image", "run", "app")
    assert resolved(Phase.CREATE, "--push", "-oci", "-run-image", "run", "app").push


RUN = '[[images]]\nimage = "cnb/run"\nmirrors = ["gcr.io/run", "quay.io/denied", "quay.io/run"]\n'


@pytest.mark.parametrize(
    ("image", "chosen"),
    [("app", "cnb/run"), ("gcr.io/app", "gcr.io/run"), ("quay.io/app", "quay.io/run")],
)
def test_the_run_image_is_the_mirror_next_to_the_app(
    image: str, chosen: str, tmp_path: Path
) -> None:
    file = tmp_path / "run.toml"
    file.write_text(RUN)
    assert resolved(Phase.ANALYZE, "-run", str(file), image).run_image == chosen
    file.write_text(RUN.replace("[[images]]", "[run-image]"))
    flags = ["-stack", str(file), image]
    assert resolved(Phase.ANALYZE, *flags, api="0.11").run_image == chosen


def test_a_run_image_that_nobody_may_read(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('[[images]]\nimage = "denied"\n')
    none = "failed to resolve inputs: failed to find accessible run image"
    assert refused(Phase.CREATE, "-run", str(file), "app") == none


def test_the_time_of_an_image_is_the_environment_s() -> None:
    flags = ["-oci", "-run-image", "run", "app"]
    more = {"SOURCE_DATE_EPOCH": "12"}
    assert resolved(Phase.CREATE, *flags, environ=more).source_date_epoch == 12
    assert resolved(Phase.CREATE, *flags, environ=more, api="0.8").source_date_epoch is None
    more = {"SOURCE_DATE_EPOCH": "12.5", "CNB_CACHE_DIR": "/c"}
    inputs, said = resolved_aloud(Phase.CREATE, *flags, environ=more)
    assert inputs.source_date_epoch is None
    assert said == ["Warning: Ignoring invalid SOURCE_DATE_EPOCH"]


def test_every_flag_is_that_of_some_phase_and_of_no_other_flag() -> None:
    assert len({argument.name for argument in ARGUMENTS}) == len(ARGUMENTS)
    letters = {phase.letter for phase in Phase}
    for argument in ARGUMENTS:
        assert {each[0] for each in argument.phases.split()} <= letters
        assert any(argument.of(phase, api) for phase in Phase for api in PLATFORM_APIS)


def test_the_page_has_the_table_of_flags() -> None:
    text = (Path(__file__).parents[4] / "docs" / "phases.md").read_text()
    assert BEGIN in text
    assert text == replaced(text), "run python -m ocistow.lifecycle.reference docs/phases.md"
