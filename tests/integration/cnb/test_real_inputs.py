"""What Go's lifecycle says and ends with when it is started wrong, and what ours does."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

from ...unit.lifecycle.invocations import INVOCATIONS


def test_x(real: Callable[[str], Path], tmp_path: Path) -> None:
    for invocation in INVOCATIONS:
        program, *arguments = shlex.split(invocation.arguments)
        for name, text in invocation.files.items():
            (tmp_path / name).write_text(text)
        done = subprocess.run(
            [real(program), *arguments],
            env=dict(invocation.environ),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        out = re.sub(r"\x1b\[[\d;]*m", "", done.stdout.decode())
        exp = "".join(f"{l}\n" for l in invocation.said)
        if (done.returncode, out) != (invocation.code, exp):
            print(invocation.arguments, done.returncode, invocation.code)
            print(out)
            print(exp)
    assert 0
