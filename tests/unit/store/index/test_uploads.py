import subprocess
import sys
from pathlib import Path

import pytest

from ocistow.oci.digest import Digest
from ocistow.store.index import uploads as module
from ocistow.store.index.database import IndexDatabase
from ocistow.store.index.uploads import Uploads

BLOB = Digest("sha256", "a" * 64)
KEY = ("registry.example", "app", BLOB)
NOTE = """
import sys
from pathlib import Path
from ocistow.oci.digest import Digest
from ocistow.store.index.database import IndexDatabase
from ocistow.store.index.uploads import Uploads
Uploads(IndexDatabase(Path(sys.argv[1]))).note(
    "registry.example", "app", Digest("sha256", "a" * 64), "https://registry.example/u/1"
)
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "index.sqlite"


@pytest.fixture
def uploads(database: Path) -> Uploads:
    return Uploads(IndexDatabase(database))


def test_nobody_takes_the_session_of_a_process_that_runs(uploads: Uploads) -> None:
    uploads.note(*KEY, "https://registry.example/u/1")
    assert uploads.take(*KEY) is None


def test_the_session_of_a_dead_process_is_taken_by_one(database: Path, uploads: Uploads) -> None:
    subprocess.run([sys.executable, "-c", NOTE, database], check=True)
    uploads.forget(*KEY)  # it is not ours to forget
    assert uploads.take(*KEY) == "https://registry.example/u/1"
    assert uploads.take(*KEY) is None
    uploads.forget(*KEY)
    uploads.leave(*KEY)
    assert uploads.take(*KEY) is None


def test_a_session_that_was_left_is_anybodys(uploads: Uploads) -> None:
    uploads.note(*KEY, "https://registry.example/u/1")
    uploads.note(*KEY, "https://registry.example/u/1?at=5")
    uploads.leave(*KEY)
    assert uploads.take(*KEY) == "https://registry.example/u/1?at=5"


def test_an_old_session_is_not_tried(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    uploads.note(*KEY, "https://registry.example/u/1")
    uploads.leave(*KEY)
    monkeypatch.setattr(module, "DURATION", -1.0)
    assert uploads.take(*KEY) is None
