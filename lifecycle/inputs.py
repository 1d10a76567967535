"""What a platform asks of a phase, once flags, environment and defaults are one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .platform_api import Version


@dataclass(frozen=True, slots=True)
class Inputs:
    """The inputs of a phase; those that it does not have keep their defaults.

    Source: platform.md, "Inputs"; Go's lifecycle, platform/defaults.go. References are text as it
    was given. Paths are absolute where the lifecycle makes them so.

    Attributes:
        platform_api: the version that CNB_PLATFORM_API names.
        image: the image to be written; the one to be analyzed.
        tags: its other names, of arguments or `-tag`.
        run_image: its reference, given or chosen; the exporter's is what analyzed.toml has. Empty
            for the rebaser when nothing says it.
        layout_dir: the directory that images are looked up in, in layout mode.
        by_draft: whether layout mode was asked for as `-oci`, whose errors the draft words.
        compression: `gzip`, `gzip:LEVEL`, `zstd` or `none`.
        environ: the environment of the process, for buildpacks and credentials.
    """

    platform_api: Version
    image: str = ""
    tags: tuple[str, ...] = ()
    analyzed_path: Path = Path("/layers/analyzed.toml")
    app_dir: Path = Path("/workspace")
    build_config_dir: Path = Path("/cnb/build-config")
    build_image: str = ""
    buildpacks_dir: Path = Path("/cnb/buildpacks")
    cache_dir: Path | None = None
    cache_image: str = ""
    compression: str = "gzip"
    daemon: bool = False
    exec_env: str = "production"
    exported_path: Path | None = None
    extensions_dir: Path = Path("/cnb/extensions")
    force_rebase: bool = False
    gid: int = 0
    uid: int = 0
    group_path: Path = Path("/layers/group.toml")
    image_digest_file: Path | None = None
    image_refs: Path | None = None
    insecure_registries: tuple[str, ...] = ()
    jobs: int = 0  # 0: one a core
    launch_cache_dir: Path | None = None
    launcher_path: Path = Path("/cnb/lifecycle/launcher")
    launcher_sbom_dir: Path = Path("/cnb/lifecycle")
    layers_dir: Path = Path("/layers")
    layout: bool = False
    by_draft: bool = False
    layout_dir: Path | None = None
    order_path: Path = Path("/cnb/order.toml")
    parallel: bool = False
    plan_path: Path = Path("/layers/plan.toml")
    platform_dir: Path = Path("/platform")
    previous_image: str = ""
    process_type: str = ""
    project_metadata_path: Path = Path("/layers/project-metadata.toml")
    publish: bool = False
    push: bool = False
    report_path: Path = Path("/layers/report.toml")
    run_path: Path = Path("/cnb/run.toml")
    run_image: str = ""
    skip_layers: bool = False
    source_date_epoch: int | None = None
    stack_path: Path = Path("/cnb/stack.toml")
    store_path: Path | None = None
    system_path: Path = Path("/cnb/system.toml")
    environ: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)

    @property
    def references(self) -> tuple[str, ...]:
        """The image and its other names, the image first."""
        return (self.image, *self.tags)
