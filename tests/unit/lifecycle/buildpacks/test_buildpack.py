"""What a buildpack.toml says, and what a buildpack can build for."""

import io
from pathlib import Path

import pytest

from ocistow.lifecycle.buildpacks.buildpack import Builder
from ocistow.lifecycle.buildpacks.target import (
    Distribution,
    Supported,
    completed,
    target_variables,
)
from ocistow.lifecycle.console import Console, Level
from ocistow.lifecycle.files.analyzed import Target
from ocistow.lifecycle.files.group import GroupElement
from ocistow.lifecycle.golang.json import encode
from ocistow.lifecycle.platform_api import Code, Version
from ocistow.oci.errors import InvalidContent, PhaseFailed

LINUX = Supported("linux")


def written(tmp_path: Path, text: str, kind: str = "buildpack", *programs: str) -> Builder:
    directory = tmp_path / "acme_one" / "1.2"
    (directory / "bin").mkdir(parents=True)
    (directory / f"{kind}.toml").write_text(text)
    for name in programs:
        (directory / "bin" / name).touch()
    return Builder(tmp_path, tmp_path)


ONE = GroupElement("acme/one", "1.2")
EXTENSION = GroupElement("acme/one", "1.2", extension=True)


def test_a_buildpack_lies_below_its_name(tmp_path: Path) -> None:
    builder = written(
        tmp_path,
        """
api = "0.12"
[buildpack]
id = "acme/one"
version = "1.2"
homepage = "https://example.com"
clear-env = true
exec-env = ["test"]
sbom-formats = ["application/spdx+json"]
[[targets]]
os = "linux"
arch = "arm64"
arch-variant = "v8"
[[targets.distros]]
name = "debian"
version = "12"
""",
    )
    found = builder.find(ONE)
    assert found.directory == tmp_path / "acme_one" / "1.2"
    assert (found.api, found.homepage, found.clear_env) == (
        Version(0, 12),
        "https://example.com",
        True,
    )
    assert (found.exec_envs, found.sboms) == (("test",), ("application/spdx+json",))
    assert found.targets == (Supported("linux", "arm64", "v8", (Distribution("debian", "12"),)),)
    assert found.order == ()


def test_a_composite_has_an_order(tmp_path: Path) -> None:
    builder = written(
        tmp_path,
        """
api = "0.10"
[[order]]
[[order.group]]
id = "A"
version = "1"
optional = true
[[order]]
""",
    )
    found = builder.find(ONE)
    assert found.order == ((GroupElement("A", "1", optional=True),), ())
    assert found.targets == ()
    assert found.alternatives(optional=True).optional


@pytest.mark.parametrize(
    ("api", "more", "program", "expected"),
    [
        ("0.10", "", "build", (LINUX,)),
        ("0.10", "", "detect", ()),
        ("0.10", '[[stacks]]\nid = "*"', "build", (Supported(),)),
        ("0.10", '[[stacks]]\nid = "other"', "build", (LINUX,)),
        (
            "0.9",
            '[[stacks]]\nid = "io.buildpacks.stacks.bionic"',
            "build",
            (Supported("linux", "amd64", "", (Distribution("ubuntu", "18.04"),)),),
        ),
        (
            "0.9",
            '[[stacks]]\nid = "io.buildpacks.stacks.bionic"\n[[stacks]]\nid = "other"',
            "build",
            (LINUX,),
        ),
    ],
)
def test_targets_are_inferred_where_none_are_given(
    tmp_path: Path, api: str, more: str, program: str, expected: tuple[Supported, ...]
) -> None:
    builder = written(tmp_path, f'api = "{api}"\n{more}\n', "buildpack", program)
    assert builder.find(ONE).targets == expected


def test_an_extension_without_programs_fits_all(tmp_path: Path) -> None:
    builder = written(tmp_path, 'api = "0.10"\n', "extension")
    assert builder.find(EXTENSION).targets == (Supported(),)
    (tmp_path / "acme_one" / "1.2" / "bin" / "generate").touch()
    assert builder.find(EXTENSION).targets == (LINUX,)


@pytest.mark.parametrize(
    ("api", "element", "message"),
    [
        (
            "0.6",
            ONE,
            "failed to set API for Buildpack 'acme/one@1.2': "
            "buildpack API version '0.6' is incompatible with the lifecycle",
        ),
        (
            "0.13",
            EXTENSION,
            "failed to set API for Extension 'acme/one@1.2': "
            "buildpack API version '0.13' is incompatible with the lifecycle",
        ),
        ("x", ONE, "failed to parse buildpack API 'x' for buildpack 'acme/one@1.2'"),
        ("", ONE, "failed to parse buildpack API '' for buildpack 'acme/one@1.2'"),
    ],
)
def test_another_api_is_refused(
    tmp_path: Path, api: str, element: GroupElement, message: str
) -> None:
    kind = "extension" if element.extension else "buildpack"
    builder = written(tmp_path, f'api = "{api}"\n', kind)
    with pytest.raises(PhaseFailed) as caught:
        builder.find(element)
    assert (caught.value.code, str(caught.value)) == (Code.BUILDPACK_API, message)


def test_what_is_not_there_is_worded_as_go_words_it(tmp_path: Path) -> None:
    path = tmp_path / "acme_one" / "1.2" / "buildpack.toml"
    with pytest.raises(InvalidContent, match=f"^open {path}: no such file or directory$"):
        Builder(tmp_path, tmp_path).find(ONE)


@pytest.mark.parametrize(
    "element", [GroupElement("..", "1"), GroupElement("a", ".."), GroupElement("a", "../../b")]
)
def test_a_name_never_leads_elsewhere(tmp_path: Path, element: GroupElement) -> None:
    with pytest.raises(InvalidContent, match="names no directory of one buildpack"):
        Builder(tmp_path / "inner", tmp_path).find(element)


@pytest.mark.parametrize(
    "more", ["targets = 1", "[buildpack]\nclear-env = 1", "[[order]]\ngroup = {}"]
)
def test_a_malformed_file_is_refused(tmp_path: Path, more: str) -> None:
    with pytest.raises(InvalidContent, match=r" of .*buildpack\.toml is not "):
        written(tmp_path, f'api = "0.10"\n{more}\n').find(ONE)


@pytest.mark.parametrize(
    ("supported", "expected"),
    [
        (Supported(), True),
        (Supported("linux", "amd64"), True),
        (Supported("linux", "amd64", "v2"), True),  # the image has none
        (Supported("windows"), False),
        (Supported("linux", "arm64"), False),
        (Supported("linux", distributions=(Distribution("debian"),)), True),
        (Supported(distributions=(Distribution("ubuntu"), Distribution("debian", "12"))), True),
        (Supported(distributions=(Distribution("debian", "11"),)), False),
    ],
)
def test_what_is_not_said_fits_all(supported: Supported, expected: bool) -> None:
    target = Target("linux", "amd64", distro_name="debian", distro_version="12")
    assert supported.fits(target) is expected


def test_a_distribution_fits_no_image_that_has_none() -> None:
    assert not Supported(distributions=(Distribution(),)).fits(Target("linux", "amd64"))
    assert Supported("linux").fits(Target("linux", "amd64"))


def test_the_distribution_is_this_machine_s_where_the_image_names_none(tmp_path: Path) -> None:
    release = tmp_path / "os-release"
    release.write_text('ID_LIKE=x\nVERSION_ID="12"\nA=b=c\nID=debian\n')
    out = io.BytesIO()
    found = completed(Target(arch="arm64"), Console(out, level=Level.INFO), release)
    assert found == Target("linux", "arm64", distro_name="debian", distro_version="12")
    assert out.getvalue() == (
        b"target distro name/version labels not found, reading /etc/os-release file\n"
    )


def test_a_distribution_that_is_known_is_kept(tmp_path: Path) -> None:
    out = io.BytesIO()
    known = Target("linux", "amd64", distro_name="alpine")
    assert completed(known, Console(out), tmp_path / "absent") == known
    assert out.getvalue() == b""


def test_no_os_release_is_no_distribution(tmp_path: Path) -> None:
    found = completed(None, Console(io.BytesIO()), tmp_path / "absent")
    assert (found.os, found.distro_name, found.distro_version) == ("linux", "", "")
    assert found.arch


def test_a_buildpack_is_told_what_it_builds_for() -> None:
    assert target_variables(Target("linux", "amd64")) == {
        "CNB_TARGET_OS": "linux",
        "CNB_TARGET_ARCH": "amd64",
    }
    whole = Target("linux", "arm64", "v8", "debian", "12", "an-id")
    assert target_variables(whole) == {
        "CNB_TARGET_OS": "linux",
        "CNB_TARGET_ARCH": "arm64",
        "CNB_TARGET_ARCH_VARIANT": "v8",
        "CNB_TARGET_DISTRO_NAME": "debian",
        "CNB_TARGET_DISTRO_VERSION": "12",
    }
    assert encode(whole.to_document()) == (
        b'{"id":"an-id","os":"linux","arch":"arm64","arch-variant":"v8",'
        b'"distro":{"name":"debian","version":"12"}}'
    )
    assert encode(Supported("linux", "", "v8", (Distribution("a", "b"),)).document()) == (
        b'{"os":"linux","arch":"","arch-variant":"v8","distros":[{"name":"a","version":"b"}]}'
    )
