"""What Go's standard library makes of things, to compare ours with."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import pytest

from ocistow.lifecycle.golang.tar import Entry

SOURCE = Path(__file__).parent / "golden.go"


class Golden:
    """The program `golden.go`, which answers until its input ends."""

    def __init__(self, questions: IO[str], answers: IO[str]) -> None:
        self._questions = questions
        self._answers = answers

    def headers(self, entries: Sequence[Entry]) -> list[bytes]:
        """Return what Go writes before the content of each of these."""
        asked = [
            {
                "Name": _encoded(entry.name),
                "Kind": ord(entry.kind),
                "Mode": entry.mode,
                "UID": entry.uid,
                "GID": entry.gid,
                "Size": entry.size,
                "Target": _encoded(entry.target),
                "Major": entry.major,
                "Minor": entry.minor,
            }
            for entry in entries
        ]
        return [base64.b64decode(header) for header in self._ask({"Headers": asked})["Headers"]]

    def archive(self, tree: Path, uid: int, gid: int) -> bytes:
        """Return a directory as the archive that Go writes of it."""
        asked = {"Tree": _encoded(os.fsencode(tree)), "UID": uid, "GID": gid}
        return base64.b64decode("".join(self._ask(asked)["Archive"]))

    def matches(self, pattern: bytes, paths: Sequence[bytes]) -> list[str]:
        """Return whether these match a pattern: `yes`, `no`, or what is wrong with it."""
        return self._ask({"Pattern": _encoded(pattern), "Paths": list(map(_encoded, paths))})[
            "Matches"
        ]

    def _ask(self, request: Mapping[str, object]) -> dict[str, list[str]]:
        self._questions.write(json.dumps(request) + "\n")
        self._questions.flush()
        answer: dict[str, list[str]] = json.loads(self._answers.readline())
        assert not answer["Error"], answer["Error"]
        return answer


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.fixture(scope="session")
def golden(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Golden]:
    compiler = shutil.which("go")
    if compiler is None:
        pytest.skip("needs Go's compiler (golang-go)")
    program = tmp_path_factory.mktemp("golden") / "golden"
    assert request.config.cache is not None
    environment = {
        "PATH": os.environ["PATH"],
        "GOCACHE": str(request.config.cache.mkdir("go")),
        "GO111MODULE": "off",
        "GOTOOLCHAIN": "local",
    }
    subprocess.run(
        [compiler, "build", "-o", program, SOURCE], check=True, env=environment, timeout=300
    )
    with subprocess.Popen(
        [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield Golden(process.stdin, process.stdout)
        process.stdin.close()
        assert process.wait(60) == 0
