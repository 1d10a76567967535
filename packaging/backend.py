"""setuptools, with archives whose bytes depend on nothing but the tree and SOURCE_DATE_EPOCH.

By itself it takes modes, owners and times from the checkout. A build backend of PEP 517.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import tarfile
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403  # every other hook is as it was

_EARLIEST = 315_532_800  # 1980-01-01, before which zip knows no time
_Settings = Mapping[str, str | list[str] | None] | None


def build_wheel(
    wheel_directory: str,
    config_settings: _Settings = None,
    metadata_directory: str | None = None,
) -> str:
    """Build a wheel in a directory, and return its name."""
    shutil.rmtree("build/lib", ignore_errors=True)  # setuptools packs what it finds there, too
    name = build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
    _even_out_wheel(Path(wheel_directory, name), _epoch())
    return name


def build_sdist(sdist_directory: str, config_settings: _Settings = None) -> str:
    """Build a source distribution in a directory, and return its name."""
    name = build_meta.build_sdist(sdist_directory, config_settings)
    _even_out_sdist(Path(sdist_directory, name), _epoch())
    return name


def _epoch() -> int:
    """Source: reproducible-builds.org, "SOURCE_DATE_EPOCH"."""
    return max(_EARLIEST, int(os.environ.get("SOURCE_DATE_EPOCH") or _EARLIEST))


def _even_out_wheel(file: Path, epoch: int) -> None:
    even = file.with_suffix(".even")
    with zipfile.ZipFile(file) as was, zipfile.ZipFile(even, "w", zipfile.ZIP_DEFLATED) as wheel:
        for entry in was.infolist():  # in order already: sorted, with RECORD last
            member = zipfile.ZipInfo(entry.filename, time.gmtime(epoch)[:6])
            member.external_attr = _mode(entry.external_attr >> 16) << 16
            member.compress_type = zipfile.ZIP_DEFLATED
            wheel.writestr(member, was.read(entry))
    even.replace(file)


def _even_out_sdist(file: Path, epoch: int) -> None:
    content = io.BytesIO()
    with (
        tarfile.open(file) as was,
        tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as sdist,
    ):
        for entry in sorted(was, key=lambda entry: entry.name):
            member = tarfile.TarInfo(entry.name)
            member.type, member.size, member.mtime = entry.type, entry.size, epoch
            member.mode = 0o755 if entry.isdir() else _mode(entry.mode)
            sdist.addfile(member, was.extractfile(entry) if entry.isfile() else None)
    file.write_bytes(gzip.compress(content.getvalue(), mtime=epoch))


def _mode(mode: int) -> int:
    """Return what git keeps of a file's mode."""
    return 0o100000 | (0o755 if mode & 0o100 else 0o644)
