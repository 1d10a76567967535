import pytest

from ocistow.oci.errors import InvalidContent
from ocistow.oci.platform import Platform


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        ("linux/amd64", Platform("linux", "amd64")),
        ("linux/x86_64", Platform("linux", "amd64")),
        ("linux/aarch64", Platform("linux", "arm64")),
        ("linux/i386", Platform("linux", "386")),
        ("linux/arm/v6", Platform("linux", "arm", "v6")),
    ],
)
def test_a_platform_is_read(text: str, platform: Platform) -> None:
    assert Platform.parse(text) == platform


@pytest.mark.parametrize(
    "text", ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/amd 64", "a/b\n"]
)
def test_what_is_not_a_platform_is_refused(text: str) -> None:
    with pytest.raises(InvalidContent, match="not a platform"):
        Platform.parse(text)


@pytest.mark.parametrize(
    ("wanted", "offered", "fits"),
    [
        (Platform("linux", "amd64"), Platform("linux", "amd64"), True),
        (Platform("linux", "amd64"), Platform("linux", "arm64"), False),
        (Platform("linux", "amd64"), Platform("windows", "amd64"), False),
        (Platform("linux", "arm64"), Platform("linux", "arm64", "v8"), True),
        (Platform("linux", "arm", "v7"), Platform("linux", "arm"), True),
        (Platform("linux", "arm"), Platform("linux", "arm", "v6"), False),
        (Platform("windows", "amd64"), Platform("windows", "amd64", os_version="10"), True),
        (
            Platform("windows", "amd64", os_version="10"),
            Platform("windows", "amd64", os_version="11"),
            False,
        ),
    ],
)
def test_which_images_fit_a_platform(wanted: Platform, offered: Platform, fits: bool) -> None:
    assert wanted.runs(offered) is fits


def test_a_platform_is_written_without_what_it_does_not_say() -> None:
    assert Platform("linux", "arm", "v7", "1").to_document() == {
        "architecture": "arm",
        "os": "linux",
        "os.version": "1",
        "variant": "v7",
    }
    assert Platform("linux", "amd64").to_document() == {"architecture": "amd64", "os": "linux"}
