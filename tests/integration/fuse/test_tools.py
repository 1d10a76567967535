"""Other people's programs on the mount."""

import filecmp
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ocistow.testing.images import GeneratedImage, image_layout
from ocistow.testing.invariants import violations
from ocistow.testing.mounts import Mount, command_line, environment, mounted, run

from .conftest import Mounter, Run

pytestmark = pytest.mark.fuse

tools = pytest.mark.tools


def assert_holds(layout: Path, image: GeneratedImage) -> None:
    """Check every blob of an image in a layout, and that its index names the image."""
    for digest in (image.manifest, image.config, *image.layers):
        blob = layout / "blobs" / digest.algorithm / digest.encoded
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == digest.encoded
    index = json.loads((layout / "index.json").read_bytes())
    assert str(image.manifest) in [entry["digest"] for entry in index["manifests"]]


def files_below(path: Path) -> dict[str, bytes]:
    return {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file()}


def fresh_image(path: Path, seed: int) -> GeneratedImage:
    return image_layout(path, seed=seed, layers=2, layer_size=50_000)


@tools
def test_skopeo_copies_in_and_out(
    here: Path, image: GeneratedImage, tmp_path: Path, run_tool: Run
) -> None:
    target = here / "layout"
    for _ in range(2):
        run_tool("skopeo", "copy", f"oci:{image.path}:latest", f"oci:{target}:latest")
        assert_holds(target, image)
    other = fresh_image(tmp_path / "other", 77)
    run_tool("skopeo", "copy", f"oci:{other.path}:latest", f"oci:{target}:latest")
    assert_holds(target, other)
    run_tool("skopeo", "copy", f"oci:{target}:latest", f"oci:{tmp_path / 'out'}:latest")
    assert_holds(tmp_path / "out", other)
    raw = run_tool("skopeo", "inspect", "--raw", f"oci:{target}:latest")
    assert hashlib.sha256(raw.encode()).hexdigest() == other.manifest.encoded


@tools
def test_two_skopeos_at_once(here: Path, tmp_path: Path, run_tool: Run) -> None:
    images = [fresh_image(tmp_path / str(seed), seed) for seed in range(100, 104)]

    def copy(number: int) -> None:
        source = f"oci:{images[number].path}:latest"
        run_tool("skopeo", "copy", source, f"oci:{here / 'each' / str(number)}:latest")
        run_tool("skopeo", "copy", source, f"oci:{here / 'one'}:latest")

    (here / "each").mkdir()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(copy, range(4)))
    for number, image in enumerate(images):
        assert_holds(here / "each" / str(number), image)
    winners = json.loads((here / "one" / "index.json").read_bytes())["manifests"]
    assert {entry["digest"] for entry in winners} <= {str(image.manifest) for image in images}
    assert len(winners) >= 1


@tools
def test_umoci_makes_changes_and_cleans(here: Path, tmp_path: Path, run_tool: Run) -> None:
    layout = here / "layout"
    (tmp_path / "file").write_text("content")
    run_tool("umoci", "init", "--layout", layout)
    run_tool("umoci", "new", "--image", f"{layout}:first")
    run_tool("umoci", "insert", "--rootless", "--image", f"{layout}:first", tmp_path / "file", "/f")
    run_tool("umoci", "config", "--image", f"{layout}:first", "--author", "somebody")
    run_tool("umoci", "tag", "--image", f"{layout}:first", "second")
    assert sorted(run_tool("umoci", "ls", "--layout", layout).split()) == ["first", "second"]
    assert "LAYER" in run_tool("umoci", "stat", "--image", f"{layout}:first")
    before = len(os.listdir(layout / "blobs" / "sha256"))
    run_tool("umoci", "gc", "--layout", layout)
    assert len(os.listdir(layout / "blobs" / "sha256")) < before
    run_tool("umoci", "unpack", "--rootless", "--image", f"{layout}:second", tmp_path / "bundle")
    assert (tmp_path / "bundle" / "rootfs" / "f").read_text() == "content"
    assert not [name for name in os.listdir(layout) if name.startswith(".umoci")]


@pytest.mark.parametrize("is_known", [False, True], ids=["new", "in the pool"])
@pytest.mark.parametrize("how", ["cp -a", "cp -r", "tar", "tar sorted", "rsync", "shutil", "mv"])
def test_a_layout_is_copied_in(
    here: Path, tmp_path: Path, shared_mount: Mount, run_tool: Run, how: str, is_known: bool
) -> None:
    seed = int.from_bytes(hashlib.sha256(f"{how}{is_known}".encode()).digest()[:4])
    image = fresh_image(tmp_path / "source", seed)
    content = files_below(image.path)
    target = here / "target"
    if is_known:
        shutil.copytree(image.path, here / "before")
        assert_holds(here / "before", image)
    archive = tmp_path / "archive.tar"
    match how:
        case "cp -a" | "cp -r":
            run_tool(*how.split(), image.path, target)
        case "tar":
            run_tool("tar", "-C", image.path, "-cf", archive, ".")
            target.mkdir()
            run_tool("tar", "-C", target, "-xf", archive)
        case "tar sorted":  # index.json comes before the blobs
            with tarfile.open(archive, "w") as tar:
                for name in sorted(content, reverse=True):
                    tar.add(image.path / name, name)
            target.mkdir()
            run_tool("tar", "-C", target, "-xf", archive)
        case "rsync":
            run_tool("rsync", "-aH", f"{image.path}/", target)
            run_tool("rsync", "-aH", f"{image.path}/", target)
        case "shutil":
            shutil.copytree(image.path, target)
        case _:
            run_tool("mv", image.path, target)
    assert files_below(target) == content
    assert files_below(shared_mount.layouts / target.relative_to(shared_mount.path)) == content


def test_a_layout_is_copied_out(
    here: Path, image: GeneratedImage, tmp_path: Path, run_tool: Run
) -> None:
    layout = here / "layout"
    shutil.copytree(image.path, layout)
    content = files_below(image.path)
    run_tool("cp", "-a", layout, tmp_path / "cp")
    run_tool("rsync", "-aH", f"{layout}/", tmp_path / "rsync")
    run_tool("tar", "-C", layout, "-cf", tmp_path / "tar", ".")
    (tmp_path / "untarred").mkdir()
    run_tool("tar", "-C", tmp_path / "untarred", "-xf", tmp_path / "tar")
    for name in ("cp", "rsync", "untarred"):
        assert files_below(tmp_path / name) == content
    run_tool("mv", layout, tmp_path / "mv")
    assert files_below(tmp_path / "mv") == content
    assert os.listdir(here) == []


def test_layouts_are_copied_moved_and_removed_within_the_mount(
    here: Path, image: GeneratedImage, shared_mount: Mount, run_tool: Run
) -> None:
    first = here / "first"
    shutil.copytree(image.path, first)
    content = files_below(image.path)
    run_tool("cp", "-a", first, here / "second")
    run_tool("cp", "-al", first, here / "third")
    run_tool("mv", here / "third", here / "fourth")
    run_tool("cp", "-a", here / "fourth", here / "fifth")
    for name in ("second", "fourth", "fifth"):
        assert files_below(here / name) == content, name
        on_disk = shared_mount.layouts / here.name / name
        for digest in image.layers:
            blob = on_disk / "blobs" / digest.algorithm / digest.encoded
            assert blob.samefile(shared_mount.store / "blobs" / "sha256" / digest.encoded)
    run_tool("diff", "-r", here / "second", here / "fifth")
    run_tool("rm", "-r", here / "second", here / "fourth")
    assert files_below(first) == content
    run_tool("rm", "-r", first, here / "fifth")
    assert os.listdir(here) == []


def test_usage_counts_what_is_shared_once(
    here: Path, tmp_path: Path, shared_mount: Mount, run_tool: Run
) -> None:
    image = image_layout(tmp_path / "image", seed=55, layers=2, layer_size=1_000_000)
    for name in "abcde":
        shutil.copytree(image.path, here / name)
    size = sum(image.blob(digest).stat().st_size for digest in image.layers)
    shown = int(run_tool("du", "-s", "-B1", here).split()[0])
    assert size <= shown < 1.3 * size
    apparent = int(run_tool("du", "-s", "-b", "-l", here).split()[0])
    assert apparent > 5 * size


def test_find_and_filecmp_agree_with_the_disk(
    here: Path, image: GeneratedImage, shared_mount: Mount, run_tool: Run
) -> None:
    shutil.copytree(image.path, here / "layout")
    on_disk = shared_mount.layouts / here.name
    on_mount = run_tool("find", ".", "-printf", "%p %y %s\n", cwd=here / "layout" / "blobs")
    below = run_tool("find", ".", "-printf", "%p %y %s\n", cwd=on_disk / "layout" / "blobs")
    assert sorted(on_mount.splitlines()) == sorted(below.splitlines())
    names = [str(f.relative_to(here)) for f in here.rglob("*") if f.is_file()]
    assert filecmp.cmpfiles(here, on_disk, names, shallow=False) == (names, [], [])


def test_a_shell_script_builds_a_layout(here: Path, run_tool: Run) -> None:
    script = """
        set -e
        mkdir -p layout/blobs/sha256
        cd layout
        echo '{"imageLayoutVersion": "1.0.0"}' > oci-layout
        echo '{"schemaVersion": 2, "manifests": []}' > index.json
        printf content > temporary
        mv temporary blobs/sha256/$(sha256sum < temporary | cut -d' ' -f1)
        printf more | tee blobs/sha256/$(printf more | sha256sum | cut -d' ' -f1) > /dev/null
        dd if=/dev/zero of=zeros bs=64k count=3 2> /dev/null
        cp zeros blobs/sha256/$(sha256sum zeros | cut -d' ' -f1)
        (cd blobs/sha256; for f in *; do echo "$f  $f"; done | sha256sum -c --quiet)
        ls blobs/sha256 | wc -l
    """
    assert run_tool("sh", "-c", script, cwd=here).strip() == "3"


def test_without_virtual_presence_only_what_was_written_is_there(
    mount_store: Mounter, image: GeneratedImage, run_tool: Run
) -> None:
    with mount_store("--no-virtual-presence") as mount:
        shutil.copytree(image.path, mount.path / "first")
        (mount.path / "second" / "blobs" / "sha256").mkdir(parents=True)
        layer = image.layers[0].encoded
        assert not (mount.path / "second" / "blobs" / "sha256" / layer).exists()
        run_tool("cp", "-a", f"{image.path}/.", mount.path / "second")
        assert_holds(mount.path / "second", image)
        pool = mount.store / "blobs" / "sha256" / layer
        assert (mount.layouts / "second" / "blobs" / "sha256" / layer).samefile(pool)
    assert violations(mount.store) == []


def test_a_store_on_a_path_with_odd_characters(
    fuse: None, tmp_path: Path, image: GeneratedImage
) -> None:
    odd = tmp_path / "a,b=c \\ ü\n"
    with mounted(odd / "store", odd / "mnt") as mount:
        shutil.copytree(image.path, mount.path / "layout")
        assert_holds(mount.path / "layout", image)
        again = subprocess.run(
            command_line(odd / "store", "mount", str(odd / "mnt")),
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert again.returncode == os.EX_TEMPFAIL
        assert again.stderr.count("\n") == 1
        assert run(odd / "store", "umount", str(odd / "mnt")).returncode == 0
        assert mount.wait() == 0


def test_a_fifo_on_the_disk_below_is_not_shown(mount_store: Mounter) -> None:
    with mount_store() as mount:
        os.mkfifo(mount.layouts / "fifo")
        (mount.layouts / "file").write_bytes(b"content")
        assert os.listdir(mount.path) in (["file"], ["fifo", "file"])
        assert not (mount.path / "fifo").exists()
        assert (mount.path / "file").read_bytes() == b"content"


def test_what_is_there_without_being_there_is_the_same_file(here: Path, run_tool: Run) -> None:
    """The price of one inode number for one blob, which docs/mount.md names."""
    name = hashlib.sha256(b"same").hexdigest()
    one, other = (here / layout / "blobs" / "sha256" for layout in ("one", "other"))
    for blobs in (one, other):
        blobs.mkdir(parents=True)
    (one / name).write_bytes(b"same")
    with pytest.raises(shutil.SameFileError):
        shutil.copy(one / name, other)
    done = subprocess.run(["cp", one / name, other], capture_output=True, text=True)
    assert "are the same file" in done.stderr
    run_tool("cp", "-al", one, here / "third")
    assert os.listdir(here / "third") == [name]


def test_git_keeps_a_repository_there(here: Path, run_tool: Run) -> None:
    """Locks, renames over, hard links, mmap and read-only files, all in one program."""
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "gc.auto=0")
    run_tool(*git, "init", "-q", ".", cwd=here)
    for number in range(3):
        (here / f"file-{number}").write_text(str(number) * 1000)
        run_tool(*git, "add", ".", cwd=here)
        run_tool(*git, "commit", "-qm", f"{number}", cwd=here)
    hook = here / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    run_tool(*git, "mv", "file-0", "moved", cwd=here)
    run_tool(*git, "commit", "-qm", "moved", cwd=here)  # the hook is no program yet
    run_tool(*git, "gc", "-q", "--aggressive", "--prune=now", cwd=here)
    run_tool(*git, "fsck", "--strict", cwd=here)
    assert subprocess.run(["git", "status", "-s"], cwd=here, capture_output=True).stdout == b""
    hook.chmod(0o755)
    again = (*git, "commit", "-q", "--amend", "-m", "refused")
    assert subprocess.run(again, cwd=here, capture_output=True).returncode == 1
    for how in ("--no-local", "--local", "--shared"):
        run_tool(*git, "clone", "-q", how, ".", here / how, cwd=here)
        run_tool(*git, "checkout", "-q", "-b", "other", "HEAD~2", cwd=here / how)
        run_tool(*git, "rebase", "-q", "origin", cwd=here / how)
        assert sorted(os.listdir(here / how)) == [".git", "file-1", "file-2", "moved"]


@tools
def test_skopeo_does_not_write_what_the_pool_has(
    shared_mount: Mount, engine: str, here: Path, tmp_path: Path, run_tool: Run
) -> None:
    image = image_layout(tmp_path / "large", seed=77, layers=1, layer_size=1 << 20)

    def written() -> int:
        words = Path(f"/proc/{shared_mount.pid}/io").read_text().split()
        return int(words[words.index("wchar:") + 1])

    counts = [written()]
    for name in ("first", "second"):
        run_tool("skopeo", "copy", f"oci:{image.path}:latest", f"oci:{here / name}:latest")
        assert_holds(here / name, image)
        counts.append(written())
    # that engine lets the kernel write
    assert engine == "kernel" or counts[1] - counts[0] > 1 << 20
    assert counts[2] - counts[1] < 1 << 16


def test_a_directory_for_blobs_may_be_made_and_removed_by_anybody(here: Path) -> None:
    blobs = here / "blobs"
    blobs.mkdir()
    blobs.rmdir()  # although sha256 was in it
    blobs.mkdir()
    (blobs / "sha256").mkdir()  # although it was there
    with pytest.raises(FileExistsError):
        (blobs / "sha256").mkdir()
    with pytest.raises(OSError, match="not empty"):
        blobs.rmdir()
    (blobs / "sha256").rmdir()
    blobs.rmdir()


def test_what_a_commit_linked_is_not_in_the_way_of_mv(
    here: Path, tmp_path: Path, shared_mount: Mount, run_tool: Run
) -> None:
    image = fresh_image(tmp_path / "source", 4711)
    content = files_below(image.path)
    shutil.copytree(image.path, here / "before")
    target = here / "target"
    target.mkdir()
    run_tool("mv", *(image.path / name for name in ("index.json", "blobs", "oci-layout")), target)
    assert files_below(target) == content
    assert files_below(shared_mount.layouts / target.relative_to(shared_mount.path)) == content
    with pytest.raises(OSError, match="not empty"):
        (target / "blobs").rmdir()


@pytest.mark.parametrize("what", ["file", "sha256/temporary", "sha256/own", "sha256/same"])
def test_what_a_client_put_beside_the_links_of_a_commit_is_in_the_way(
    here: Path, image: GeneratedImage, what: str
) -> None:
    shutil.copytree(image.path, here / "before")
    target = here / "target"
    target.mkdir()
    for name in ("oci-layout", "index.json"):
        shutil.copy(image.path / name, target)
    path, content = target / "blobs" / what, b"content"
    if path.name == "own":
        path = path.with_name(hashlib.sha256(content).hexdigest())
    elif path.name == "same":
        path = path.with_name(image.config.encoded)
        content = path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(OSError, match="not empty"):
        (target / "blobs").rmdir()
    if path.parent.name == "sha256":
        with pytest.raises(OSError, match="not empty"):
            path.parent.rmdir()
    assert path.read_bytes() == content
    assert image.manifest.encoded in os.listdir(target / "blobs" / "sha256")
    if path.name in ("file", "temporary"):
        path.unlink()  # it has no name on disk, and would live as long as the mount
