import tomllib
from pathlib import Path

import pytest

from ocistow.lifecycle.files.group import GroupElement
from ocistow.lifecycle.files.labels import RunImageMetadata
from ocistow.lifecycle.files.metadata import BillEntry
from ocistow.lifecycle.files.report import Report, read_report, write_exported, write_report
from ocistow.oci.digest import Digest
from ocistow.oci.errors import InvalidContent

LIMIT = 4096  # bytes of a termination message in Kubernetes
DIGEST = Digest.of(b"manifest")
RUN = RunImageMetadata(
    str(Digest.of(b"layer")),
    f"index.docker.io/paketobuildpacks/run-jammy-base@{DIGEST}",
    "index.docker.io/paketobuildpacks/run-jammy-base:latest",
    (
        "gcr.io/paketo-buildpacks/run-jammy-base:latest",
        "mirror.example.com/docker-hub/paketobuildpacks/run-jammy-base:latest",
    ),
)


def test_twenty_tags_fit_into_a_termination_message(tmp_path: Path) -> None:
    name = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/team/service/application"
    tags = tuple(f"{name}:main-20261121-161428-{number:02}-4f2a91c" for number in range(20))
    report = Report(tags, DIGEST, DIGEST.encoded, 12345, RUN)
    write_report(tmp_path / "report.toml", report)
    published = f'\n[published]\n  digest-in = "{DIGEST}"\n  digest-out = "{DIGEST}"\n'
    assert len((tmp_path / "report.toml").read_text() + published) < LIMIT
    assert read_report(tmp_path / "report.toml") == report


def test_the_run_image_is_there_in_both_shapes(tmp_path: Path) -> None:
    write_report(tmp_path / "report.toml", Report(("a",), DIGEST, manifest_size=7, run_image=RUN))
    assert tomllib.loads((tmp_path / "report.toml").read_text()) == {
        "image": {
            "tags": ["a"],
            "digest": str(DIGEST),
            "manifest-size": 7,
            "run-image": {
                "image": RUN.image,
                "mirrors": list(RUN.mirrors),
                "reference": RUN.reference,
                "top-layer": RUN.top_layer,
            },
        },
        "run-image": {
            "image": RUN.image,
            "reference": RUN.reference,
            "top-layer": RUN.top_layer,
        },
    }


def test_what_is_not_known_is_not_said(tmp_path: Path) -> None:
    write_report(tmp_path / "report.toml", Report(("a", "b"), image_id="0a"))
    text = (tmp_path / "report.toml").read_text()
    assert text == '[image]\n  tags = ["a", "b"]\n  image-id = "0a"\n'


def test_bills_of_materials_are_those_of_the_build(tmp_path: Path) -> None:
    bill = (BillEntry("thing", metadata={"v": 1}, buildpack=GroupElement("b", "2")),)
    write_report(tmp_path / "report.toml", Report(("a",), bill=bill))
    assert (tmp_path / "report.toml").read_text() == (
        '[build]\n\n  [[build.bom]]\n    name = "thing"\n    [build.bom.metadata]\n      v = 1\n'
        '    [build.bom.buildpack]\n      id = "b"\n      version = "2"\n\n'
        '[image]\n  tags = ["a"]\n'
    )


@pytest.mark.parametrize(
    ("report", "identifier"),
    [(Report(("a",), DIGEST, "0a"), str(DIGEST)), (Report(("a",), image_id="0a"), "0a")],
)
def test_the_older_draft_has_one_identifier(
    tmp_path: Path, report: Report, identifier: str
) -> None:
    write_exported(tmp_path / "exported.toml", report)
    assert (tmp_path / "exported.toml").read_text() == (
        f'[image]\n  tags = ["a"]\n  identifier = "{identifier}"\n'
    )


def test_a_report_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "report.toml").write_text('[image]\nmanifest-size = "large"\n')
    with pytest.raises(InvalidContent, match=r"manifest-size of .* is not a size"):
        read_report(tmp_path / "report.toml")
    with pytest.raises(InvalidContent, match=r"failed to read report file: open .*: no such file"):
        read_report(tmp_path / "absent.toml")
