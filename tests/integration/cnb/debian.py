"""Debian as run image, as small as debootstrap makes it."""

import os
import shlex
import shutil
from pathlib import Path

from ocistow.lifecycle.files.labels import DISTRO_NAME, DISTRO_VERSION

from ..conftest import PATH
from ..debian import KEYRING, kept, mirror, step

SUITE = "bookworm"


def run_image() -> Path:
    """Return an image layout, with the image under the tag "base"; nobody writes to it."""
    return kept(f"{SUITE}-run", _make)


def _make(work: Path) -> Path:
    environment = {**os.environ, "PATH": PATH}
    tree, image = work / "rootfs", work / "image"
    options = ("--variant=minbase", f"--keyring={KEYRING}")
    step(["debootstrap", *options, SUITE, str(tree), mirror()], environment)
    for directory in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale"):
        shutil.rmtree(tree / directory)
    lines = (tree / "etc" / "os-release").read_text().splitlines()
    release = dict(word.split("=", 1) for line in lines for word in shlex.split(line))
    labels = {DISTRO_NAME: release["ID"], DISTRO_VERSION: release["VERSION_ID"]}
    labelled = [f"--config.label={name}={value}" for name, value in labels.items()]
    for arguments in (
        ("init", "--layout", str(image)),
        ("new", "--image", f"{image}:base"),
        ("insert", "--image", f"{image}:base", str(tree), "/"),
        ("config", "--image", f"{image}:base", "--config.env=PATH=/usr/bin:/bin", *labelled),
        ("gc", "--layout", str(image)),
    ):
        step(["umoci", *arguments], environment)
    return image
