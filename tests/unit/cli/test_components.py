import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import cast

from ocistow.cli.components import bill, components, replaced

ROOT = Path(__file__).parents[3]
SPDX = re.compile(r"[A-Za-z0-9.-]+( (OR|AND) [A-Za-z0-9.-]+)*")


def test_the_licences_in_the_documentation_are_those_of_what_is_installed() -> None:
    text = (ROOT / "docs" / "licences.md").read_text()
    assert replaced(text) == text


def test_all_that_is_depended_on_is_listed_with_a_licence() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.split("[>=]", line)[0] for line in project["dependencies"]}
    known = {part.name: part for part in components()}
    assert wanted <= known.keys()
    assert known["ocistow"].licence == "Apache-2.0"
    assert {"sniffio", "urllib3"} <= known.keys()  # of those that are depended on
    assert [part.name for part in known.values() if not SPDX.fullmatch(part.licence)] == []
    assert "pytest" not in known


def test_every_reference_of_the_bill_leads_to_a_component() -> None:
    parts = components()
    document = json.loads(json.dumps(bill(parts)))
    subject = document["metadata"]["component"]["bom-ref"]
    known = {subject, *(part["bom-ref"] for part in document["components"])}
    assert len(known) == len(parts)
    assert {line["ref"] for line in document["dependencies"]} == known
    assert {ref for line in document["dependencies"] for ref in line["dependsOn"]} <= known


def test_the_bill_is_printed_the_same_again() -> None:
    command = [sys.executable, "-m", "ocistow.cli.components"]
    first, second = (subprocess.check_output(command, timeout=60) for _ in range(2))
    assert first == second
    assert cast("dict[str, object]", json.loads(first))["bomFormat"] == "CycloneDX"
