"""What `python -m build` makes: a wheel that works without a checkout, and its source."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Mapping
from email.parser import Parser
from pathlib import Path

import pytest

from ocistow.testing.minimal import minimal_image

ROOT = Path(__file__).parents[3]
TREE = ("LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "packaging", "src")
TIMEOUT = 120

pytestmark = pytest.mark.slow


def build(checkout: Path, directory: Path, what: str) -> Path:
    """Build a wheel or an sdist; only the umask and the checkout's times differ between calls."""
    command = [
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        f"--{what}",
        f"--outdir={directory}",
    ]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    subprocess.run(
        [*command, checkout], env=environment, check=True, capture_output=True, timeout=TIMEOUT
    )
    [made] = directory.iterdir()
    return made


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source distribution of a copy: others run tests in the checkout at the same time."""
    work = tmp_path_factory.mktemp("sdist")
    copy_checkout(work / "checkout")
    return build(work / "checkout", work / "made", "sdist")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, sdist: Path) -> Path:
    """The wheel that is built of the source distribution, as pip does."""
    work = tmp_path_factory.mktemp("wheel")
    subprocess.run(["tar", "-xf", sdist, "-C", work], check=True)
    [source] = work.iterdir()
    return build(source, work / "made", "wheel")


def copy_checkout(place: Path) -> None:
    """Copy what packages are made of, with links as they are, and with times and modes of now."""
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    folders = [path.name for path in (ROOT / "src" / "ocistow").iterdir() if path.is_symlink()]
    place.mkdir()
    for name in (*TREE, *folders):
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name,
                place / name,
                symlinks=True,
                ignore=ignored,
                copy_function=shutil.copyfile,
            )
        else:
            shutil.copyfile(ROOT / name, place / name)


def test_bytes_depend_on_the_tree_alone(tmp_path: Path, sdist: Path, wheel: Path) -> None:
    copy_checkout(tmp_path / "checkout")
    stale = tmp_path / "checkout" / "build" / "lib" / "ocistow" / "stale.py"
    stale.parent.mkdir(parents=True)
    stale.touch()
    for path in (tmp_path / "checkout").rglob("*.py"):
        path.chmod(0o600)
        os.utime(path, (1e9, 1e9))
    images = tmp_path / "checkout" / "build" / "store"  # of `make image`
    images.mkdir()
    umask = os.umask(0o077)
    try:
        assert build(tmp_path / "checkout", tmp_path / "wheel", "wheel").read_bytes() == (
            wheel.read_bytes()
        )
        assert build(tmp_path / "checkout", tmp_path / "sdist", "sdist").read_bytes() == (
            sdist.read_bytes()
        )
    finally:
        os.umask(umask)
    assert images.is_dir()


def test_the_source_distribution_has_all_that_is_tracked() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode != 0:
        pytest.skip("needs a clone")
    tops = {name.partition("/")[0] for name in tracked.stdout.splitlines()}
    linked = {path.name for path in (ROOT / "src" / "ocistow").iterdir()}
    asked_for = (ROOT / "MANIFEST.in").read_text().split()
    assert tops - linked - {*TREE, *asked_for} == {".gitignore"}


def test_the_wheel_has_all_modules_and_no_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = ROOT / "src" / "ocistow"
    modules = {
        f"ocistow/{folder.name}/{path.relative_to(folder)}"
        for folder in sources.iterdir()
        for path in folder.rglob("*.py")
    }
    assert modules <= names
    assert {"ocistow/py.typed", "ocistow/audit/page.html"} <= names
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"ocistow", "ocistow-0.1.0.data", "ocistow-0.1.0.dist-info"}
    assert not [name for name in names if "test_" in name or "conftest" in name]


def test_the_wheel_installs_what_lies_below_packaging(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    data = {name.partition(".data/data/")[2] for name in names if ".data/data/" in name}
    wanted = [*(ROOT / "packaging" / "share").rglob("*"), *(ROOT / "packaging" / "lib").rglob("*")]
    files = {str(path.relative_to(ROOT / "packaging")) for path in wanted if path.is_file()}
    assert data == files


def test_metadata_is_complete(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = Parser().parsestr(
            archive.read("ocistow-0.1.0.dist-info/METADATA").decode("utf-8")
        )
    assert metadata["Name"] == "ocistow"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["License-File"] == "LICENSE"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata.get_all("Project-URL")
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    assert str(metadata.get_payload()).startswith("# ocistow")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """A new virtual environment with the wheel; what it depends on comes from this one's.

    A directory in a .pth file is searched, but its own .pth files are not read: so an editable
    installation there, whose is one, is not seen.
    """
    place = tmp_path_factory.mktemp("installed")
    python, ours = place / "bin" / "python", [sys.executable, "-I", "-m"]
    subprocess.run([*ours, "venv", "--without-pip", place], check=True, timeout=TIMEOUT)
    pip = [*ours, "pip", f"--python={python}", "install", "--quiet", "--no-deps", "--no-index"]
    without_checkout = {key: text for key, text in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run([*pip, wheel], env=without_checkout, check=True, timeout=TIMEOUT)
    [packages] = place.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return place


def environment(place: Path, store: Path) -> Mapping[str, str]:
    return {
        "HOME": str(store.parent),
        "OCISTOW_CONFIG": os.devnull,
        "OCISTOW_STORE": str(store),
        "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
    }


def test_an_installed_wheel_knows_no_checkout(installed: Path, tmp_path: Path) -> None:
    code = "import ocistow.cli.main, sys; print(ocistow.__file__, *sys.path, sep='\\n')"
    told = subprocess.run(
        [installed / "bin" / "python", "-c", code],
        cwd=tmp_path,
        env=environment(installed, tmp_path / "store"),
        check=True,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    ).stdout.splitlines()
    assert Path(told[0]).is_relative_to(installed)
    assert not [line for line in told if line in (str(ROOT), str(ROOT / "src"))]


@pytest.mark.fuse
def test_an_installed_wheel_adds_mounts_and_publishes(
    fuse: None, installed: Path, tmp_path: Path
) -> None:
    minimal_image("one").write_to(tmp_path / "image")
    (tmp_path / "mnt").mkdir()

    def run(*command: str) -> str:
        return subprocess.run(
            command,
            cwd=tmp_path,
            env=environment(installed, tmp_path / "store"),
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT,
        ).stdout

    assert run("ocistow", "--version") == "ocistow 0.1.0\n"
    run("ocistow", "add", "oci:image", "example.com/app:1")
    run("mount.ocistow", str(tmp_path / "store"), str(tmp_path / "mnt"), "-o", "ro")
    try:
        assert (tmp_path / "mnt" / "example.com" / "app" / "1" / "index.json").is_file()
    finally:
        run("ocistow", "umount", "mnt")
    run("ocistow", "publish", "example.com/app:1", "oci:out:1")
    pushed = {path.name for path in (tmp_path / "out").glob("blobs/*/*")}
    assert pushed == {path.name for path in (tmp_path / "image").glob("blobs/*/*")}
