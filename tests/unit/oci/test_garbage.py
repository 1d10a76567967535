from __future__ import annotations

import subprocess
import sys

_COMMAND = """
import atexit, gc
atexit.register(lambda: print("frozen" if gc.get_freeze_count() else "to be looked at"))
from ocistow.oci.garbage import collect_rarely
collect_rarely()
before = sum(generation["collections"] for generation in gc.get_stats())
import http.client, ssl, sqlite3, tomllib
print(sum(generation["collections"] for generation in gc.get_stats()) - before)
"""


def test_what_is_imported_is_not_searched_for_garbage_and_neither_is_what_is_there_at_the_end() -> (
    None
):
    command = [sys.executable, "-c", _COMMAND]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["0", "frozen", ""]
