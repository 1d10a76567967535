"""Real buildpacks: built twice by the programs, published, started and unpacked."""

import filecmp
import json
import shutil
import subprocess
import tomllib
from collections.abc import Generator
from pathlib import Path

import pytest

from ocistow.oci.document import as_object
from ocistow.testing.images import busybox_image
from ocistow.testing.mounts import mounted

from ..conftest import Dockerd, DockerRegistry, program
from . import debian
from .workplace import Workplace, workplace

NAME = "example.com/app:1"
SOURCE = Path(__file__).with_name("launcher.c")
TYPES = [  # of the layers of acme/everything
    "build-cache",
    "cache",
    "launch-build",
    "launch-build-cache",
    "launch-cache",
    "only-launch",
]
STORED = {"store.toml"}


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a stand-in for the launcher, which needs nothing of the image that it is in."""
    path = tmp_path_factory.mktemp("launcher") / "launcher"
    command = [program("gcc"), "-static", "-O1", "-Wall", "-o", str(path), str(SOURCE)]
    subprocess.run(command, check=True)
    return path


@pytest.fixture(params=["plain", pytest.param("mounted", marks=pytest.mark.fuse)])
def place(request: pytest.FixtureRequest, launcher: Path) -> Generator[Workplace]:
    with workplace() as place:
        shutil.copy(launcher, place.root / "launcher")
        if request.param == "plain":
            yield place
            return
        request.getfixturevalue("fuse")
        with mounted(place.root / "store", place.root / "mnt") as mount:
            place.layouts = mount.path
            yield place


def run_image(place: Workplace, directory: Path) -> None:
    busybox_image(directory, tag="base")
    target = place.layout("example.com/run:base")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(directory, target, copy_function=shutil.copyfile)
    if place.layouts == place.root / "oci":
        place.own()


def debian_image(place: Workplace) -> None:
    target = place.layout("example.com/run:base")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(debian.run_image(), target)
    place.own()


def found(said: str) -> set[str]:
    """Return what acme/everything found in its directory, without what is inside of layers."""
    [line] = (line for line in said.splitlines() if line.startswith("found: "))
    names = {name.removeprefix("./") for name in line.removeprefix("found: ").split()}
    return {name for name in names if "/" not in name}


def restored(*layers: str, metadata: tuple[str, ...] = ()) -> set[str]:
    forms = ("cdx", "spdx", "syft")
    return STORED | {
        *layers,
        *(f"{layer}.toml" for layer in (*layers, *metadata)),
        *(f"{layer}.sbom.{form}.json" for layer in (*layers, *metadata) for form in forms),
    }


def lines(said: str, start: str) -> list[str]:
    return [line.split("'")[1] for line in said.splitlines() if line.startswith(start)]


def check_second(place: Workplace, said: str, digest: str) -> None:
    """See that everything was taken from the image of before, and nothing became another one."""
    assert lines(said, "Adding layer") == []
    assert [name for name in lines(said, "Reusing layer '") if name.startswith("acme")] == [
        f"acme/everything:{name}" for name in TYPES if "launch" in name
    ]
    assert "Reused 3/3 app layer(s)" in said
    assert config_digest(place) == digest
    assert '\nstore: [metadata]answer="x"\n' in said


def config_digest(place: Workplace) -> str:
    return str(as_object(place.manifest(NAME)["config"], "config")["digest"])


@pytest.mark.tools
def test_phases_build_twice_and_take_up_what_they_left(place: Workplace, tmp_path: Path) -> None:
    run_image(place, tmp_path / "base")
    first = place.build(NAME)
    digest = config_digest(place)
    assert found(first) == set()
    assert len(lines(first, "Adding layer")) >= 9
    place.fresh()
    second = place.build(NAME)
    cached = tuple(name for name in TYPES if "cache" in name)
    assert found(second) >= restored(*cached, metadata=("only-launch",))
    assert not found(second) & {
        "only-launch",
        "only-build",
        "none",
        "launch-build",
        "only-build.toml",
    }
    check_second(place, second, digest)
    unpacked(place, tmp_path)


def test_creator_builds_twice_without_a_cache(place: Workplace, tmp_path: Path) -> None:
    run_image(place, tmp_path / "base")
    place.cache = False
    first = place.build(NAME, one=True)
    headers = [line for line in first.splitlines() if line.startswith("===>")]
    phases = ("ANALYZING", "DETECTING", "RESTORING", "BUILDING", "EXPORTING")
    assert headers == [f"===> {name}" for name in phases]
    digest = config_digest(place)
    place.fresh()
    second = place.build(NAME, one=True)
    assert not any(name in found(second) for name in TYPES)
    assert {"only-launch.toml", "store.toml"} <= found(second)
    check_second(place, second, digest)


def test_phases_and_creator_make_the_same_image(place: Workplace, tmp_path: Path) -> None:
    run_image(place, tmp_path / "base")
    place.build(NAME, one=True)
    together = place.manifest(NAME)
    shutil.rmtree(place.layout(NAME))
    place.fresh("layers", "cache")
    place.build(NAME)
    assert place.manifest(NAME) == together


@pytest.mark.docker
def test_the_image_runs(place: Workplace, tmp_path: Path, dockerd: Dockerd) -> None:
    run_image(place, tmp_path / "base")
    check_run(place, dockerd)


@pytest.mark.docker
@pytest.mark.tools
@pytest.mark.parametrize("cache", [True, False], ids=["cache", "no-cache"])
def test_the_image_runs_upon_debian(launcher: Path, dockerd: Dockerd, *, cache: bool) -> None:
    with workplace() as place:
        shutil.copy(launcher, place.root / "launcher")
        place.cache = cache
        debian_image(place)
        check_run(place, dockerd)
        shell = ("run", "--rm", "--network=none", "--entrypoint=/bin/sh", NAME, "-c")
        assert dockerd.run(*shell, '. /etc/os-release && echo "$ID"') == "debian"
        assert dockerd.run(*shell, "readlink /proc/$$/exe; :") == "/usr/bin/dash"
        digest = config_digest(place)
        place.fresh()
        second = place.build(NAME)
        assert any(name in found(second) for name in TYPES) == cache
        check_second(place, second, digest)
        wanted = "target distro name/version labels not found"  # the run image has them
        assert wanted not in place.run("detector")


@pytest.mark.registry
@pytest.mark.tools
def test_creator_pushes_what_it_exported(
    place: Workplace, tmp_path: Path, docker_registry: DockerRegistry
) -> None:
    run_image(place, tmp_path / "base")
    name = f"{docker_registry.host}/built/app:1"
    said = place.build(name, "-push", one=True)
    assert said.index("===> EXPORTING") < said.index("===> PUBLISHING")
    index = json.loads((place.layout(name) / "index.json").read_bytes())
    command = [program("skopeo"), "inspect", "--tls-verify=false", f"docker://{name}"]
    pushed = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert pushed["Digest"] == index["manifests"][0]["digest"]
    artifact = f"docker://{name.rpartition(':')[0]}:report"  # what acme/everything asks for
    command = [program("skopeo"), "copy", "--src-tls-verify=false", artifact, f"dir:{tmp_path}/got"]
    subprocess.run(command, check=True, capture_output=True)
    manifest = json.loads((tmp_path / "got" / "manifest.json").read_bytes())
    assert manifest["subject"]["digest"] == pushed["Digest"]
    assert manifest["artifactType"] == "text/plain"
    [layer] = manifest["layers"]
    assert layer["annotations"] == {"org.opencontainers.image.title": "report.txt"}
    content = tmp_path / "got" / layer["digest"].partition(":")[2]
    assert content.read_text() == "a report\n"
    report = tomllib.loads((place.root / "layers" / "report.toml").read_text())
    assert report["published"] == dict.fromkeys(("digest-in", "digest-out"), pushed["Digest"])
    assert report["image"]["tags"] == [name]


def check_run(place: Workplace, dockerd: Dockerd) -> None:
    """Build, publish into the daemon, and start each process."""
    place.build(NAME, one=True)
    place.variables = {"DOCKER_HOST": dockerd.host}
    place.run("publisher", f"-layers={place.root / 'layers'}", "-daemon", NAME)

    def run(*arguments: str) -> str:
        return dockerd.run("run", "--rm", "--network", "none", *arguments)

    layers, app = place.root / "layers", place.root / "app"
    sys_info = layers / "samples_hello-processes" / "sys-info" / "bin" / "sys-info"
    assert run(NAME) == "an app"  # samples/bash-script comes last, and its process is the default
    assert run("--entrypoint", "/cnb/process/worker", NAME) == "worker"
    assert run("--entrypoint", "/cnb/lifecycle/launcher", NAME, "sys-info", "more") == (
        f"in {app} as 0, called {sys_info} with: --everything more"
    )
    labels = json.loads(dockerd.run("inspect", "--format", "{{json .Config.Labels}}", NAME))
    assert labels["com.example.everything"] == 'a <label> & "more"'


def unpacked(place: Workplace, tmp_path: Path) -> None:
    """Compare what umoci makes of the image with what was built."""
    bundle = tmp_path / "bundle"
    copy = tmp_path / "copy"  # umoci locks the directory, and a mount is not made for that
    shutil.copytree(place.layout(NAME), copy)
    command = [program("umoci"), "unpack", "--image", f"{copy}:1", str(bundle)]
    subprocess.run(command, check=True, capture_output=True)
    rootfs = bundle / "rootfs"
    for inside in (
        "app",
        "layers/acme_everything/only-launch",
        "layers/config",
        "layers/sbom/launch",
    ):
        compared = filecmp.dircmp(place.root / inside, rootfs / str(place.root)[1:] / inside, [])
        assert not compared.left_only
        assert not compared.right_only
        assert not compared.diff_files
    layers = rootfs / str(place.root)[1:] / "layers"
    assert sorted(path.name for path in (layers / "acme_everything").iterdir()) == [
        name for name in TYPES if "launch" in name
    ]
    assert (layers / "acme_everything" / "launch-cache" / "link").readlink() == Path(
        "bin/launch-cache"
    )
    assert (layers / "acme_everything" / "launch-cache" / "bin").stat().st_uid == 65534
    assert (rootfs / "cnb" / "process" / "web").readlink() == Path("/cnb/lifecycle/launcher")
