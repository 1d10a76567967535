"""The processor, Python and its libraries, and what the system lets a process have."""

from __future__ import annotations

import hashlib
import importlib
import os
import platform
import resource
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from ...oci.version import version
from ..output import count, human
from .check import Check, fail, ok, warn

LIBRARIES = ("blake3", "click", "isal", "pyfastcdc", "pyfuse3", "requests", "trio", "zstandard")
FEW_FILES = 1024  # a mount has two open for each file of its clients
SLOW = 600_000_000  # bytes a second of SHA-256; instructions for it give 1 to 2 GB/s, none 0.4

_SAMPLE = 4 << 20  # bytes
_INSTRUCTIONS = {"sha_ni", "sha2", "avx2", "avx512f", "asimd"}


def machine() -> Iterator[Check]:
    """Look at what every command needs."""
    yield ok("ocistow", f"{version()}, Python {platform.python_version()}")
    yield ok("kernel", f"Linux {os.uname().release}, {os.uname().machine}")
    yield from _libraries()
    yield _database()
    yield _hashing()
    yield _open_files()


def _libraries() -> Iterator[Check]:
    found: list[str] = []
    for name in LIBRARIES:
        try:
            importlib.import_module(name)
            found.append(f"{name} {metadata.version(name)}")
        except Exception as error:  # whatever a library of others does when it is loaded
            words = f"{name}: {type(error).__name__}: {' '.join(str(error).split())}"
            yield fail("libraries", words, f"install ocistow anew, or: pip install {name}")
    if len(found) == len(LIBRARIES):
        yield ok("libraries", ", ".join(found))


def _database() -> Check:
    """Make the tables of the index database in memory."""
    try:
        import sqlite3

        from ...store.index.schema import connect
    except ImportError as error:  # who compiles Python without its headers gets none
        return fail("sqlite", str(error), "take a Python that has the module sqlite3")
    try:
        connect(Path(":memory:"), 0, alone=True).close()
    except (sqlite3.Error, OSError) as error:
        return fail("sqlite", f"{sqlite3.sqlite_version}: {error}", "install a newer SQLite")
    return ok("sqlite", sqlite3.sqlite_version)


def _hashing() -> Check:
    data = bytes(_SAMPLE)
    began = time.thread_time()  # others may be on this processor, too
    hashlib.sha256(data).digest()
    speed = int(_SAMPLE / max(time.thread_time() - began, 1e-6))
    known = _INSTRUCTIONS & set(_flags())
    found = f"SHA-256 at {human(speed)}/s on one processor of {os.cpu_count()}" + (
        f", which has {' '.join(sorted(known))}" if known else ""
    )
    if speed < SLOW:
        return warn(
            "hashing",
            found,
            "blobs come in no faster than this; `checksums = true` in the settings lets "
            "`verify` read by BLAKE3",
        )
    return ok("hashing", found)


def _flags() -> list[str]:
    """Return what the first processor says that it can. Source: proc_cpuinfo(5)."""
    try:
        with Path("/proc/cpuinfo").open() as lines:
            line = next((x for x in lines if x.startswith(("flags", "Features"))), "")
    except OSError:
        return []
    return line.partition(":")[2].split()


def _open_files() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or soft >= FEW_FILES:
        return ok("open files", f"{count(soft, 'file')}, at most {hard}")
    return warn(
        "open files",
        f"{count(soft, 'file')}, at most {hard}",
        f"a mount runs out of them when many files are open: ulimit -n {max(hard, FEW_FILES)}, "
        "or LimitNOFILE= of its unit",
    )
