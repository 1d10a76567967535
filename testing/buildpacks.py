"""Buildpacks written for one test, and the directories of a platform around them."""

from __future__ import annotations

import io
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..lifecycle.build import build
from ..lifecycle.console import Console, Level
from ..lifecycle.detect import detect
from ..lifecycle.inputs import Inputs
from ..lifecycle.layers.directories import escaped
from ..lifecycle.platform_api import Version

TARGET = """\
[run-image]
reference = "run"
[run-image.target]
os = "linux"
arch = "amd64"
[run-image.target.distro]
name = "debian"
version = "12"
"""


@dataclass
class Workplace:
    """The directories that a platform gives to detector and builder, below one root.

    Attributes:
        said: what phases have written so far, without what is debugged.
    """

    root: Path
    inputs: Inputs = field(init=False)
    said: io.BytesIO = field(default_factory=io.BytesIO)

    def __post_init__(self) -> None:
        for name in ("app", "layers", "platform/env", "build-config/env", "buildpacks"):
            (self.root / name).mkdir(parents=True)
        layers = self.root / "layers"
        (layers / "analyzed.toml").write_text(TARGET)
        self.inputs = Inputs(
            Version(0, 12),
            app_dir=self.root / "app",
            layers_dir=layers,
            platform_dir=self.root / "platform",
            build_config_dir=self.root / "build-config",
            buildpacks_dir=self.root / "buildpacks",
            extensions_dir=self.root / "extensions",
            order_path=self.root / "order.toml",
            system_path=self.root / "system.toml",
            analyzed_path=layers / "analyzed.toml",
            group_path=layers / "group.toml",
            plan_path=layers / "plan.toml",
            environ={"PATH": "/usr/bin:/bin", "HOME": "/home/cnb", "SECRET": "x"},
        )

    @property
    def text(self) -> str:
        """What phases have written so far."""
        return self.said.getvalue().decode()

    def add(
        self,
        identifier: str,
        build: str = "",
        *,
        api: str = "0.10",
        detect: str = "",
        more: str = "",
        kind: str = "buildpack",
    ) -> Path:
        """Write a buildpack of version 1, whose programs are these lines of shell."""
        directory = self.root / f"{kind}s" / escaped(identifier) / "1"
        (directory / "bin").mkdir(parents=True)
        table = f'[{kind}]\nid = "{identifier}"\nversion = "1"\n'
        (directory / f"{kind}.toml").write_text(f'api = "{api}"\n{table}{more}')
        for name, script in (("detect", detect), ("build", build)):
            (directory / "bin" / name).write_text(f"#!/bin/sh\nset -eu\n{script}\n")
            (directory / "bin" / name).chmod(0o755)
        return directory

    def order(self, *groups: str, extensions: str = "") -> None:
        """Write an order; a group is names between blanks, `?` behind what is optional."""
        text = "".join(_group("order", names.split()) for names in groups)
        more = _group("order-extensions", extensions.split()) if extensions else ""
        (self.root / "order.toml").write_text(text + more)

    def detect(self, **changes: object) -> str:
        """Detect, and return the identifiers of who takes part."""
        group, _ = detect(replace(self.inputs, **changes), self.console)  # type: ignore[arg-type] # as the test says
        return " ".join(element.id for element in group.buildpacks)

    def build(self, *identifiers: str, **changes: object) -> dict[str, object]:
        """Build with these buildpacks, or with those that were detected; return metadata.toml."""
        if identifiers:
            self.order(" ".join(identifiers))
            self.detect(**changes)
        build(replace(self.inputs, **changes), self.console)  # type: ignore[arg-type] # as the test says
        return tomllib.loads((self.root / "layers" / "config" / "metadata.toml").read_text())

    def platform_env(self, variables: Mapping[str, str], directory: str = "platform") -> None:
        """Write what the user says, or the operator in `build-config`."""
        for name, value in variables.items():
            (self.root / directory / "env" / name).write_text(value)

    @property
    def console(self) -> Console:
        """A console that `text` shows."""
        return Console(self.said, level=Level.INFO)


def _group(table: str, names: Sequence[str]) -> str:
    text = f"[[{table}]]\n"
    for name in names:
        optional = "optional = true\n" if name.endswith("?") else ""
        text += f'[[{table}.group]]\nid = "{name.rstrip("?")}"\nversion = "1"\n{optional}'
    return text
