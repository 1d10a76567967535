import subprocess
from pathlib import Path

import pytest
import requests

from ocistow.testing.archives import docker_archive, oci_archive
from ocistow.testing.images import busybox_image, image_layout, index_layout
from ocistow.testing.registry import Registry
from ocistow.testing.tarballs import BUSYBOX

from ..conftest import program, serving

OCTETS = {"Content-Type": "application/octet-stream"}
MANIFEST = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}
EMPTY = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"  # of "{}"
ABSENT = "sha256:" + "0" * 64

Reply = tuple[int, tuple[str, ...], tuple[tuple[str, str], ...]]


def run(*command: str) -> str:
    """Run a tool, which must succeed, and return its output."""
    done = subprocess.run([program(command[0]), *command[1:]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def copy(source: str, destination: str, *options: str) -> None:
    insecure = ("--src-tls-verify=false", "--dest-tls-verify=false")
    run("skopeo", "copy", "--all", "--preserve-digests", *insecure, *options, source, destination)


def blobs(layout: Path) -> set[str]:
    return {file.name for file in (layout / "blobs" / "sha256").iterdir()}


@pytest.mark.tools
@pytest.mark.parametrize("relative", [False, True])
def test_skopeo_pushes_and_pulls_an_image(tmp_path: Path, relative: bool) -> None:
    image = image_layout(tmp_path / "there", layer_size=100_000)
    with Registry(relative=relative) as registry:
        name = f"docker://{registry.host}/some/app:v1"
        copy(f"oci:{tmp_path}/there:latest", name)
        assert registry.repositories.tags("some/app") == {"v1": image.manifest}
        copy(name, f"oci:{tmp_path}/back:latest")
        run("skopeo", "inspect", "--tls-verify=false", name)
    assert blobs(tmp_path / "back") == blobs(tmp_path / "there")


@pytest.mark.tools
def test_skopeo_pushes_and_pulls_an_index(tmp_path: Path) -> None:
    index = index_layout(tmp_path / "there", tag="multi")
    with Registry() as registry:
        copy(f"oci:{tmp_path}/there:multi", f"docker://{registry.host}/app:multi")
        assert registry.repositories.tags("app") == {"multi": index.index}
        copy(f"docker://{registry.host}/app:multi", f"oci:{tmp_path}/back:multi")
    assert blobs(tmp_path / "back") == blobs(tmp_path / "there")


@pytest.mark.tools
def test_skopeo_pulls_a_docker_image_that_was_loaded(tmp_path: Path) -> None:
    image = image_layout(tmp_path / "there", media="docker")
    with Registry() as registry:
        registry.repositories.load(tmp_path / "there", "app")
        copy(f"docker://{registry.host}/app:latest", f"dir:{tmp_path}/back")
    assert (tmp_path / "back" / image.config.encoded).exists()


@pytest.mark.tools
def test_skopeo_logs_in(tmp_path: Path) -> None:
    image_layout(tmp_path)
    with Registry(credentials=("user", "pass")) as registry:
        copy(f"oci:{tmp_path}", f"docker://{registry.host}/app:v1", "--dest-creds=user:pass")
        assert "Authorization" not in registry.requests[0].headers
        assert all("Authorization" in request.headers for request in registry.requests[1:])


@pytest.mark.tools
def test_tools_read_the_layouts(tmp_path: Path) -> None:
    base = image_layout(tmp_path / "base", compression="none", tag="base")
    app = image_layout(tmp_path / "app", seed=1, base=base, tag="app")
    run("skopeo", "inspect", f"oci:{tmp_path}/base:base")
    assert str(app.layers[-1]) in run("umoci", "stat", "--image", f"{tmp_path}/app:app")
    run("umoci", "unpack", "--rootless", "--image", f"{tmp_path}/app:app", f"{tmp_path}/bundle")
    assert len(list((tmp_path / "bundle" / "rootfs" / "data").iterdir())) == 6


@pytest.mark.tools
def test_tools_read_the_archives(tmp_path: Path) -> None:
    image = image_layout(tmp_path / "layout")
    oci_archive(tmp_path / "layout", tmp_path / "oci.tar")
    copy(f"oci-archive:{tmp_path}/oci.tar:latest", f"oci:{tmp_path}/back:latest")
    assert blobs(tmp_path / "back") == blobs(tmp_path / "layout")
    docker_archive(tmp_path / "docker.tar", {"example.com/app:v1": image})
    source = f"docker-archive:{tmp_path}/docker.tar:example.com/app:v1"
    run("skopeo", "copy", source, f"oci:{tmp_path}/saved:v1")
    config = run("skopeo", "inspect", "--config", f"oci:{tmp_path}/saved:v1")
    assert all(str(diff_id) in config for diff_id in image.diff_ids)


@pytest.mark.tools
@pytest.mark.skipif(not BUSYBOX.exists(), reason="needs /bin/busybox")
def test_umoci_unpacks_the_busybox_image(tmp_path: Path) -> None:
    busybox_image(tmp_path / "layout", tag="box")
    run("umoci", "unpack", "--rootless", "--image", f"{tmp_path}/layout:box", f"{tmp_path}/b")
    assert run(f"{tmp_path}/b/rootfs/bin/sh", "-c", "echo hello") == "hello\n"


def dialogue(url: str) -> list[Reply]:
    """Say the same to a registry as to any other; return what must not differ."""
    replies: list[Reply] = []
    with requests.Session() as session:
        session.trust_env = False

        def say(
            method: str, path: str, data: bytes = b"", headers: dict[str, str] | None = None
        ) -> str:
            target = path if path.startswith("http") else f"{url}/v2/{path}"
            response = session.request(method, target, data=data, headers=headers)
            codes: tuple[str, ...] = ()
            if not response.ok and method != "HEAD":
                codes = tuple(error["code"] for error in response.json()["errors"])
            kept = ("Docker-Content-Digest", "Range", "Content-Range")
            told = tuple((k, response.headers[k]) for k in kept if k in response.headers)
            replies.append((response.status_code, codes, told))
            return response.headers.get("Location", "")

        config = f'{{"mediaType": "{MANIFEST["Content-Type"]}", "schemaVersion": 2, "layers": [],'
        config += '"config": {"mediaType": "application/vnd.oci.image.config.v1+json", "size": 2, '
        say("GET", "")
        say("HEAD", f"a/blobs/{EMPTY}")
        say("GET", f"a/blobs/{EMPTY}")
        location = say("POST", "a/blobs/uploads/")
        say("GET", location)
        location = say("PATCH", location, b"{", OCTETS)
        say("GET", location)
        say("PUT", f"{location}&digest={ABSENT}", b"}", OCTETS)
        location = say("POST", "a/blobs/uploads/")
        say("DELETE", location)
        location = say("POST", "a/blobs/uploads/")
        say("PUT", f"{location}&digest={EMPTY}", b"{}", OCTETS)
        say("HEAD", f"a/blobs/{EMPTY}")
        say("GET", f"a/blobs/{EMPTY}", headers={"Range": "bytes=1-"})
        say("HEAD", f"b/blobs/{EMPTY}")
        say("POST", f"b/blobs/uploads/?mount={EMPTY}&from=a")
        say("POST", f"b/blobs/uploads/?mount={ABSENT}&from=a")
        say("GET", "a/manifests/v1")
        say("PUT", "a/manifests/v1", b"{", MANIFEST)
        say("PUT", "a/manifests/v1", f'{config}"digest": "{ABSENT}"}}}}'.encode(), MANIFEST)
        right = f'{config}"digest": "{EMPTY}"}}}}'.encode()
        say("PUT", "a/manifests/v1", right, MANIFEST)
        say("PUT", f"a/manifests/{ABSENT}", right, MANIFEST)
        say("GET", "a/manifests/v1")
        for method in ("GET", "HEAD"):
            say(method, "a/manifests/v1", headers={"Accept": MANIFEST["Content-Type"]})
        say("GET", "a/tags/list")
        say("GET", "nothing/tags/list")
    return replies


@pytest.mark.registry
def test_both_registries_say_the_same(tmp_path: Path) -> None:
    with serving(tmp_path / "registry") as registry:
        real = dialogue(f"http://{registry.host}")
    with Registry() as registry:
        assert dialogue(registry.url) == real
