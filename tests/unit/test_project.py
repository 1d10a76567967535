"""Lists that several files have agree; CONTRIBUTING.md says how to add a root folder."""

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
IMPORT_ROOT = ROOT / "src" / "ocistow"
FOLDERS = {path.name for path in IMPORT_ROOT.iterdir() if (path / "__init__.py").is_file()}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TOOLS = PROJECT["tool"]


def test_there_are_folders() -> None:
    assert {"oci", "store"} <= FOLDERS


def test_every_link_leads_to_the_root_folder_of_its_name() -> None:
    for link in (path for path in IMPORT_ROOT.iterdir() if path.is_symlink()):
        assert link.readlink() == Path("../..", link.name)


def test_every_root_package_is_linked() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages <= FOLDERS


def test_basedpyright_sees_every_folder() -> None:
    others = {"tests", "benchmarks", "scripts"}
    assert set(TOOLS["basedpyright"]["include"]) == FOLDERS | others


def test_coverage_sees_every_folder() -> None:
    assert set(TOOLS["coverage"]["run"]["source"]) == FOLDERS


def test_every_folder_has_its_layer() -> None:
    [layers] = [
        contract["layers"]
        for contract in TOOLS["importlinter"]["contracts"]
        if contract.get("containers") == ["ocistow"]
    ]
    assert {name.strip() for layer in layers for name in layer.split("|")} == FOLDERS


def test_stray_imports_of_every_folder_are_noticed() -> None:
    source = ast.parse((ROOT / "tests" / "conftest.py").read_text())
    [known] = [
        ast.literal_eval(node.value)
        for node in source.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ROOT_FOLDERS"
    ]
    assert known == FOLDERS


def test_every_dependency_has_its_reason() -> None:
    needs = [*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"]]
    for group in PROJECT["dependency-groups"].values():
        needs += [need for need in group if isinstance(need, str)]
    names = {re.split(r"[\[>=]", need)[0] for need in needs}
    decision = (ROOT / "docs" / "adr" / "0006-dependencies.md").read_text()
    rows = re.findall(r"^\| ([\w, -]+) \|", decision, re.MULTILINE)
    assert {name for row in rows for name in row.split(", ")} - {"Package", "---"} == names
