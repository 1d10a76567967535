"""`ocistow doctor` on a machine from which things are taken away."""

import base64
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import pytest

import ocistow
from ocistow.store.store import Store
from ocistow.testing.strangers import as_stranger, home

from ..conftest import Dockerd, program

SOURCES = Path(ocistow.__file__).parents[1]
CODE = "from ocistow.cli.main import main; main()"
TIMEOUT = 60

pytestmark = pytest.mark.slow

Found = Mapping[str, tuple[str, str, str]]
Doctor = Callable[..., tuple[int, Found]]


@pytest.fixture
def doctor(tmp_path: Path) -> Doctor:
    """Run it, after a command if need be; return its status, and each check by its name."""

    def run(*before: str, store: Path | None = None, **environment: str) -> tuple[int, Found]:
        done = subprocess.run(
            [*before, sys.executable, "-c", CODE, "doctor", "--json"],
            env=surroundings(tmp_path, store, environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        assert done.stderr == ""
        checks = json.loads(done.stdout)["checks"]
        return done.returncode, {c["name"]: (c["state"], c["found"], c["advice"]) for c in checks}

    return run


def surroundings(
    home: Path, store: Path | None, environment: Mapping[str, str]
) -> Mapping[str, str]:
    return {
        "HOME": str(home),
        "OCISTOW_CONFIG": os.devnull,
        "OCISTOW_STORE": str(store or home / "store"),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(SOURCES),
        "TMPDIR": str(home),
        **environment,
    }


def test_what_is_there_is_found_and_left_as_it_is(doctor: Doctor, tmp_path: Path) -> None:
    Store.create(tmp_path / "store").close()
    before = sorted(tmp_path.rglob("*"))
    status, found = doctor()
    assert sorted(tmp_path.rglob("*")) == before
    failures = [name for name, (state, _, _) in found.items() if state == "fail"]
    assert (status, failures) == (0, [])
    assert found["mount"][1].startswith("works: engine ")
    assert found["hard links"][1].startswith("possible")
    assert found["store"][1] == str(tmp_path / "store")
    assert all(advice for state, _, advice in found.values() if state != "ok")


@pytest.mark.fuse
def test_the_mount_that_is_tried_is_of_the_same_installation(tmp_path: Path) -> None:
    """As of a script that alone knows where the libraries are."""
    (tmp_path / "ocistow").mkdir()
    (tmp_path / "ocistow" / "__init__.py").write_text("raise SystemExit('another one')")
    script = f"import sys; sys.path.insert(0, {str(SOURCES)!r}); {CODE}"
    done = subprocess.run(
        [sys.executable, "-I", "-c", script, "doctor", "--json"],
        cwd=tmp_path,
        env=surroundings(tmp_path, None, {"PYTHONPATH": str(tmp_path)}),
        stdout=subprocess.PIPE,
        timeout=TIMEOUT,
    )
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["mount"]["found"].startswith("works: engine ")


@pytest.mark.parametrize(("module", "check"), [("trio", "libraries"), ("sqlite3", "sqlite")])
def test_what_cannot_be_loaded_is_told(
    doctor: Doctor, tmp_path: Path, module: str, check: str
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / f"{module}.py").write_text("raise ImportError('no such file')")
    status, found = doctor(PYTHONPATH=f"{tmp_path / 'broken'}:{SOURCES}")
    assert (status, found[check][0]) == (4, "fail")
    assert "no such file" in found[check][1]
    assert "kernel" in found


def test_no_store_can_be_where_a_file_is(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    status, found = doctor(store=tmp_path / "file" / "store")
    assert status == 4
    assert found["store"][:2] == ("fail", f"{tmp_path / 'file'} is not a directory")


def test_a_store_on_a_disk_that_may_only_be_read_is_no_failure(
    doctor: Doctor, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount")
    store = tmp_path / "store"
    Store.create(store).close()
    protect = f'mount --bind {store} {store} && mount -o remount,ro,bind {store} && exec "$@"'
    status, found = doctor(program("unshare"), "--mount", "sh", "-c", protect, "sh")
    assert (status, found["store"][0]) == (0, "ok")
    assert found["unnamed files"][0] == "warn"
    assert found["unnamed files"][2].endswith("mounted with rw")


def test_people_get_a_table_that_lines_up(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, "doctor"],
        env=surroundings(tmp_path, None, {}),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    table = done.stdout.partition("\n\n")[0].splitlines()
    at = table[0].index("STATE")
    assert {line[at : at + 5].strip() for line in table[1:]} <= {"ok", "warn", "fail"}
    assert table[0].index("FOUND") == at + len("STATE  ")
    assert "\x1b" not in done.stdout


@pytest.mark.fuse
def test_without_the_device_there_are_no_mounts(doctor: Doctor) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount")
    taken = "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && mknod /dev/urandom c 1 9"
    status, found = doctor(program("unshare"), "--mount", "sh", "-c", f'{taken} && exec "$@"', "sh")
    assert status == 4
    assert found["/dev/fuse"][:2] == ("fail", "not there")
    assert found["mount"][:2] == ("fail", "not tried")


@pytest.mark.fuse
def test_another_device_in_its_place_is_noticed(doctor: Doctor) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount")
    taken = 'mount --bind /dev/null /dev/fuse && exec "$@"'
    status, found = doctor(program("unshare"), "--mount", "sh", "-c", taken, "sh")
    assert (status, found["mount"][0]) == (4, "fail")


NO_MTAB = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /etc && exec "$@"', "sh")
AS_PACKAGED = (  # Debian's fuse.conf, in which there is a comment on each line
    *("unshare", "--mount", "sh", "-c"),
    "mount -t tmpfs none /mnt && echo '# user_allow_other - Using the' > /mnt/fuse.conf && "
    'mount --bind /mnt/fuse.conf /etc/fuse.conf && exec "$@"',
    "sh",
)


@pytest.mark.fuse
@pytest.mark.parametrize(
    ("outside", "inside", "expected"),
    [
        ((), (), {"fusermount3": "ok", "mount": "ok"}),
        ((), ("setpriv", "--no-new-privs"), {"fusermount3": "ok", "mount": "warn"}),
        (NO_MTAB, (), {"fusermount3": "fail", "mount": "warn"}),
        (AS_PACKAGED, (), {"user_allow_other": "warn"}),
        ((), ("env", "OCISTOW_STORE=/usr/store"), {"store": "ok", "unnamed files": "fail"}),
    ],
    ids=["all", "no-new-privileges", "no-mtab", "as-packaged", "not-theirs"],
)
def test_users_are_told_whether_they_may_mount(
    outside: Sequence[str], inside: Sequence[str], expected: Mapping[str, str]
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become another user")
    with home() as place:
        done = subprocess.run(
            [*outside, *as_stranger(*inside, sys.executable, "-c", CODE, "doctor", "--json")],
            env=surroundings(place, None, {}),
            cwd=place,
            stdout=subprocess.PIPE,
            timeout=TIMEOUT,
        )
        assert list(place.iterdir()) == []
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert {name: checks[name]["state"] for name in expected} == expected, checks


def test_without_programs_it_says_which_are_missing(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "cat").symlink_to(program("cat"))
    status, found = doctor(PATH=str(tmp_path / "bin"))
    assert found["podman"][:2] == ("ok", "not on PATH")
    if os.geteuid() == 0:
        assert (status, found["fusermount3"][0], found["mount"][0]) == (0, "ok", "ok")
    else:
        assert (status, found["fusermount3"][:2]) == (4, ("fail", "not on PATH"))


def test_a_file_system_without_unnamed_files_cannot_have_a_store(
    doctor: Doctor, file_system: Callable[[str], Path]
) -> None:
    place = file_system("exfat")
    status, found = doctor(store=place / "store")
    assert status == 4
    assert found["file system"][1] == f"fuseblk at {place}"
    assert found["unnamed files"][0] == "fail"
    assert list(place.iterdir()) == []


def test_links_without_a_limit_are_no_fault(
    doctor: Doctor, file_system: Callable[[str], Path]
) -> None:
    _, found = doctor(store=file_system("tmpfs") / "store")
    assert found["hard links"] == ("ok", "possible", "")


def test_daemons_that_are_gone_are_told_from_those_that_never_were(
    doctor: Doctor, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead"))
    address = f"unix://{tmp_path / 'dead'}"
    status, found = doctor(DOCKER_HOST=address, CONTAINERD_ADDRESS=str(tmp_path / "dead"))
    assert status == 0
    assert found["docker"][0] == found["containerd"][0] == "warn"
    assert "connection refused" in found["docker"][1]
    assert "connection refused" in found["containerd"][1]


@pytest.mark.docker
def test_a_daemon_says_what_it_is(doctor: Doctor, dockerd: Dockerd) -> None:
    _, found = doctor(DOCKER_HOST=dockerd.host)
    version = dockerd.run("version", "--format", "{{.Server.Version}}")
    assert found["docker"][:2] == ("ok", f"{version}, classic image store, at {dockerd.host}")


def test_no_secret_is_told(doctor: Doctor, tmp_path: Path) -> None:
    secret = base64.b64encode(b"user:hunter2").decode()
    config = tmp_path / "config.json"
    config.write_text(
        json.dumps({"auths": {"example.com": {"auth": secret}}, "credsStore": "nowhere"})
    )
    broken = json.dumps({"example.com": ["hunter2"]})
    status, found = doctor(DOCKER_CONFIG=str(tmp_path), CNB_REGISTRY_AUTH=broken)
    told = json.dumps(cast("object", found))
    assert "hunter2" not in told
    assert secret not in told
    assert found["credential helper"][0] == "warn"
    assert (status, found["credentials"][0]) == (4, "fail")
