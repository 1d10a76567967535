import io
from dataclasses import replace
from pathlib import Path

import pytest

from ocistow.lifecycle.console import Console, Level
from ocistow.lifecycle.files.metadata import BuildMetadata, Process
from ocistow.lifecycle.images.config import Config
from ocistow.lifecycle.images.settings import configured, default_process
from ocistow.lifecycle.inputs import Inputs
from ocistow.lifecycle.platform_api import Version
from ocistow.oci.errors import InvalidContent

INPUTS = Inputs(Version(0, 12), app_dir=Path("/app"), layers_dir=Path("/l"))
BUILD = BuildMetadata(default_process="web", processes=(Process("web"), Process("worker")))


@pytest.mark.parametrize(
    ("asked", "build", "expected"),
    [
        ("", BUILD, "web"),
        ("worker", BUILD, "worker"),
        ("", replace(BUILD, default_process=""), ""),
        ("", BuildMetadata(), ""),
    ],
)
def test_the_platform_chooses_the_process_before_the_buildpacks_do(
    asked: str, build: BuildMetadata, expected: str
) -> None:
    assert default_process(build, asked) == expected


def test_a_process_that_does_not_exist_is_refused_in_the_words_of_the_lifecycle() -> None:
    with pytest.raises(InvalidContent) as refused:
        default_process(BUILD, "cron")
    assert str(refused.value) == "tried to set cron to default but it doesn't exist"


def test_an_image_starts_the_default_process_in_the_directory_of_the_application() -> None:
    out = io.BytesIO()
    console = Console(out, level=Level.DEBUG)
    console.color = False
    base = Config(
        env=("PATH=/bin", "CNB_APP_DIR=/old"), cmd=("sh",), entrypoint=("x",), labels={"a": "1"}
    )
    made = configured(base, INPUTS, "web", [("a", "2"), ("b", "3"), ("b", "4")], console)
    assert made == Config(
        env=(
            "PATH=/cnb/process:/cnb/lifecycle:/bin",
            "CNB_APP_DIR=/app",
            "CNB_LAYERS_DIR=/l",
            "CNB_PLATFORM_API=0.12",
            "CNB_DEPRECATION_MODE=quiet",
        ),
        labels={"a": "2", "b": "4"},
        working_dir="/app",
        entrypoint=("/cnb/process/web",),
    )
    assert out.getvalue().decode().splitlines() == [
        "Adding label 'a'",
        "Adding label 'b'",
        "Adding label 'b'",
        "Setting CNB_LAYERS_DIR=/l",
        "Setting CNB_APP_DIR=/app",
        "Setting CNB_PLATFORM_API=0.12",
        "Setting CNB_DEPRECATION_MODE=quiet",
        "Prepending /cnb/process and /cnb/lifecycle to PATH",
        "Setting WORKDIR: '/app'",
        "Setting default process type 'web'",
        "Setting ENTRYPOINT: '/cnb/process/web'",
    ]


def test_without_a_default_the_launcher_is_started() -> None:
    out = io.BytesIO()
    made = configured(Config(), INPUTS, "", [], Console(out))
    assert made.entrypoint == ("/cnb/lifecycle/launcher",)
    assert b"no default process type\n" in out.getvalue()
