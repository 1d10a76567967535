"""Files with credentials: what counts, and that nothing of them is told."""

import base64
import errno
import json
import traceback
from pathlib import Path
from typing import IO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocistow.oci.errors import InvalidContent, NotFound, OcistowError, RegistryError
from ocistow.publish.access import Access
from ocistow.publish.distribution.credentials import AuthFile, Credentials, of_header
from ocistow.publish.distribution.keychain import Keychain, auth_files

SECRET = "hunter2-do-not-tell"


def pair(user: str, password: str = SECRET) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def users(entries: dict[str, str]) -> bytes:
    """Write a file of keys and users."""
    return json.dumps({"auths": {key: pair(user) for key, user in entries.items()}}).encode()


def user_for(raw: bytes, registry: str, repository: str = "ns/app") -> str | None:
    found = AuthFile.parse(raw, "auth.json").find(registry, repository)
    return found.user if found else None


def test_the_longest_namespace_counts() -> None:
    raw = users({"h:5000": "host", "h:5000/ns": "ns", "h:5000/ns/app": "app", "h:5000/n": "no"})
    assert user_for(raw, "h:5000") == "app"
    assert user_for(raw, "h:5000", "ns/other/app") == "ns"
    assert user_for(raw, "h:5000", "nsx/app") == "host"
    assert user_for(raw, "h") is None
    assert user_for(raw, "h:5001") is None


@pytest.mark.parametrize(
    "key",
    ["https://index.docker.io/v1/", "docker.io", "index.docker.io", "registry-1.docker.io/v2/"],
)
def test_docker_hub_has_many_names(key: str) -> None:
    assert user_for(users({key: "me"}), "index.docker.io", "library/alpine") == "me"
    assert user_for(users({key: "me"}), "docker.io.example.org", "library/alpine") is None


@pytest.mark.parametrize("key", ["http://h:5000", "https://H:5000/", "h:5000/v2/", "h:5000/v1"])
def test_a_key_may_be_an_address(key: str) -> None:
    assert user_for(users({key: "me"}), "h:5000") == "me"


def test_every_form_of_an_entry() -> None:
    entries = {
        "a": pair("u"),
        "b": {"username": "u", "password": SECRET},
        "c": {"identitytoken": SECRET},
        "d": {"registrytoken": SECRET},
        "e": {},
        "f": {"auth": ""},
        "g": {**pair("u"), "identitytoken": SECRET},
        "h": pair("u", f"{SECRET}:with:colons\0\0"),
    }
    file = AuthFile.parse(json.dumps({"auths": entries}).encode(), "f")
    assert file.find("a", "x") == file.find("b", "x") == Credentials("f", "u", SECRET)
    assert file.find("c", "x") == Credentials("f", identity_token=SECRET)
    assert file.find("d", "x") == Credentials("f", registry_token=SECRET)
    assert file.find("e", "x") is file.find("f", "x") is None
    assert file.find("g", "x") == Credentials("f", "u", SECRET, SECRET)
    assert file.find("h", "x") == Credentials("f", "u", f"{SECRET}:with:colons")


def test_an_old_file_has_hosts_only() -> None:
    raw = json.dumps({"https://index.docker.io/v1/": pair("me")}).encode()
    found = AuthFile.parse(raw, ".dockercfg", legacy=True).find("index.docker.io", "x/y")
    assert found == Credentials(".dockercfg", "me", SECRET)
    assert AuthFile.parse(raw, "config.json").find("index.docker.io", "x/y") is None


def test_an_empty_password_is_one() -> None:
    assert of_header("Basic " + base64.b64encode(b"u:").decode(), "x").basic == "Basic dTo="


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (f"Basic {pair('u')['auth']}", Credentials("env", "u", SECRET)),
        (f"bearer {SECRET}", Credentials("env", registry_token=SECRET)),
        (f"X-Identity {SECRET}", Credentials("env", identity_token=SECRET)),
    ],
)
def test_headers_of_lifecycle(value: str, expected: Credentials) -> None:
    assert of_header(value, "env") == expected


MALFORMED: list[object] = [
    {"auth": SECRET},
    {"auth": base64.b64encode(SECRET.encode()).decode()},
    {"auth": [SECRET]},
    {"identitytoken": f"{SECRET}\r\nX-Evil: 1"},
    {"registrytoken": f"{SECRET} {SECRET}"},
    {"username": {SECRET: 1}},
    SECRET,
    [SECRET],
]


@pytest.mark.parametrize("entry", MALFORMED)
def test_a_malformed_entry_names_the_file_and_not_the_secret(entry: object) -> None:
    raw = json.dumps({"auths": {"h": entry, "good": pair("u")}}).encode()
    file = AuthFile.parse(raw, "/some/auth.json")
    with pytest.raises(InvalidContent, match=r"/some/auth\.json") as raised:
        file.find("h", "app")
    assert_no_secret(raised.value)
    assert SECRET not in repr(file)
    assert file.find("good", "app") == Credentials("/some/auth.json", "u", SECRET)


@pytest.mark.parametrize(
    "raw",
    [
        SECRET.encode(),
        f'["{SECRET}"]'.encode(),
        f'{{"auths": "{SECRET}"}}'.encode(),
        f'{{"auths": {{"{SECRET}": 1}}'.encode(),
        f'{{"auths": {{}}, "credHelpers": {{"h": ["{SECRET}"]}}}}'.encode(),
        f'{{"auths": {{}}, "credsStore": ["{SECRET}"]}}'.encode(),
        b"\xff" + SECRET.encode(),
    ],
)
def test_a_malformed_file_is_one_line_without_its_content(raw: bytes) -> None:
    with pytest.raises(InvalidContent, match=r"auth\.json") as raised:
        AuthFile.parse(raw, "auth.json")
    assert_no_secret(raised.value)


@pytest.mark.parametrize("value", [SECRET, f"Digest {SECRET}", f"Basic {SECRET}", "Bearer", ""])
def test_a_malformed_header_is_not_told(value: str) -> None:
    with pytest.raises(InvalidContent) as raised:
        of_header(value, "CNB_REGISTRY_AUTH")
    assert_no_secret(raised.value)


def assert_no_secret(error: BaseException) -> None:
    """Look for the secret in all that a log could show of an error."""
    assert SECRET not in "".join(traceback.format_exception(error, chain=True))
    assert "\n" not in str(error)


@given(st.text(min_size=1).filter(lambda t: ":" not in t), st.text().map(lambda t: t.rstrip("\0")))
def test_what_was_encoded_is_found(user: str, password: str) -> None:
    found = AuthFile.parse(json.dumps({"auths": {"h": pair(user, password)}}).encode(), "f")
    assert found.find("h", "app") == Credentials("f", user, password)


def test_a_repr_has_no_secret() -> None:
    credentials = Credentials("f", SECRET, SECRET, SECRET, SECRET)
    assert repr(credentials) == "Credentials(origin='f')"
    assert SECRET not in repr(Access(("user", SECRET), SECRET))


# where they are looked for


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "bin").mkdir()
    return {
        "HOME": str(tmp_path / "home"),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin",
    }


def write(path: Path, raw: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)
    return path


def test_the_first_place_with_something_counts(tmp_path: Path, environment: dict[str, str]) -> None:
    """Fill the places from the last to the first: each hides those after it."""

    def found(access: Access | None = None) -> str:
        credentials = Keychain(access or Access(), environment).find("h", "ns/app")
        return credentials.user or credentials.registry_token if credentials else ""

    home = tmp_path / "home"
    assert found() == ""
    write(home / ".dockercfg", json.dumps({"h": pair("legacy")}).encode())
    assert found() == "legacy"
    write(home / ".docker/config.json", users({"h": "docker"}))
    assert found() == "docker"
    environment["DOCKER_CONFIG"] = str(tmp_path / "docker")
    assert found() == "legacy"
    write(tmp_path / "docker/config.json", users({"h": "elsewhere", "other/ns/app": "no"}))
    assert found() == "elsewhere"
    write(tmp_path / "config/containers/auth.json", users({"h": "config"}))
    assert found() == "config"
    write(tmp_path / "run/containers/auth.json", users({"h": "run"}))
    assert found() == "run"
    environment["REGISTRY_AUTH_FILE"] = str(tmp_path / "given.json")
    assert found() == "run"  # it need not exist, as with podman login
    write(tmp_path / "given.json", users({"h": "given"}))
    assert found() == "given"
    environment["DOCKER_AUTH_CONFIG"] = users({"h": "inline"}).decode()
    assert found() == "inline"
    header = f"Basic {pair('lifecycle')['auth']}"
    environment["CNB_REGISTRY_AUTH"] = json.dumps({"other": f"Bearer {SECRET}", "h": header})
    assert found() == "lifecycle"
    authfile = write(tmp_path / "only.json", users({"h": "only"}))
    assert found(Access(authfile=authfile)) == "only"
    assert found(Access(credentials=("me", "x"), authfile=authfile)) == "me"
    assert found(Access(registry_token="token", credentials=("me", "x"))) == "token"


def test_a_file_that_is_given_is_the_only_one(tmp_path: Path, environment: dict[str, str]) -> None:
    write(tmp_path / "home/.docker/config.json", users({"h": "docker"}))
    environment["CNB_REGISTRY_AUTH"] = json.dumps({"h": f"Bearer {SECRET}"})
    authfile = write(tmp_path / "only.json", users({"other": "only"}))
    assert Keychain(Access(authfile=authfile), environment).find("h", "app") is None
    with pytest.raises(FileNotFoundError, match="absent"):
        Keychain(Access(authfile=tmp_path / "absent"), environment).find("h", "app")


def test_a_file_has_a_limit_and_may_be_empty(tmp_path: Path, environment: dict[str, str]) -> None:
    write(tmp_path / "run/containers/auth.json", b"")
    assert Keychain(Access(), environment).find("h", "app") is None
    path = write(tmp_path / "run/containers/auth.json", b" " * ((1 << 20) + 1))
    with pytest.raises(InvalidContent, match=rf"^{path} has over 1048576 bytes$"):
        Keychain(Access(), environment).find("h", "app")


def test_without_a_runtime_directory_there_is_the_one_of_podman() -> None:
    assert "/run/containers/" in str(auth_files({"HOME": "/h"})[0])


def helper(tmp_path: Path, name: str, script: str) -> None:
    program = write(
        tmp_path / "bin" / f"docker-credential-{name}", f"#!/bin/sh\n{script}\n".encode()
    )
    program.chmod(0o755)


ANSWER = 'read -r host; echo "{\\"Username\\": \\"u\\", \\"Secret\\": \\"$host\\"}"'


def test_a_helper_of_the_host_comes_before_the_store_and_this_before_entries(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    helper(tmp_path, "one", ANSWER.replace('"u', '"one'))
    helper(tmp_path, "all", ANSWER.replace('"u', '"all'))
    config = {
        "credHelpers": {"h:5000": "one"},
        "credsStore": "all",
        "auths": {"h:5000": pair("entry")},
    }
    write(tmp_path / "home/.docker/config.json", json.dumps(config).encode())
    keychain = Keychain(Access(), environment)
    one = keychain.find("h:5000", "app")
    assert one == Credentials("docker-credential-one", "one", "h:5000")
    hub = keychain.find("index.docker.io", "library/app")
    assert hub == Credentials("docker-credential-all", "all", "https://index.docker.io/v1/")


@pytest.mark.parametrize(
    "script",
    [
        "cat >/dev/null; echo credentials not found in native keychain; exit 1",
        'echo "{\\"Username\\": \\"\\", \\"Secret\\": \\"\\"}"',
    ],
)
def test_a_helper_may_have_nothing(
    tmp_path: Path, environment: dict[str, str], script: str
) -> None:
    helper(tmp_path, "x", script)
    config = {"credHelpers": {"h": "x"}, "auths": {"h": pair("entry")}}
    write(tmp_path / "home/.docker/config.json", json.dumps(config).encode())
    found = Keychain(Access(), environment).find("h", "app")
    assert found is not None
    assert found.user == "entry"


def test_a_helper_may_have_an_identity_token(tmp_path: Path, environment: dict[str, str]) -> None:
    helper(tmp_path, "x", 'echo "{\\"Username\\": \\"<token>\\", \\"Secret\\": \\"abc\\"}"')
    config = json.dumps({"credsStore": "x"}).encode()
    write(tmp_path / "home/.docker/config.json", config)
    found = Keychain(Access(), environment).find("h", "app")
    assert found == Credentials("docker-credential-x", identity_token="abc")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'token expired, log in again'; exit 1", "token expired, log in again"),
        (f'echo \'{{"Secret": "{SECRET}"}}\'; exit 3', "exit status 3"),
        (f"echo {SECRET}", "answer of docker-credential-x is not a JSON object"),
        (f'echo \'{{"Username": "u", "Secret": ["{SECRET}"]}}\'', "Secret of answer of"),
        (f'echo \'{{"Username": "<token>", "Secret": "{SECRET} x"}}\'', "not a token"),
        (f"yes {SECRET}", "it told over 65536 bytes"),
        (f"echo {SECRET} >&2; exit 1", "exit status 1"),
    ],
)
def test_a_helper_that_does_otherwise_gives_one_line(
    tmp_path: Path, environment: dict[str, str], script: str, words: str
) -> None:
    helper(tmp_path, "x", script)
    config = json.dumps({"credHelpers": {"h": "x"}}).encode()
    write(tmp_path / "home/.docker/config.json", config)
    with pytest.raises(OcistowError, match=words) as raised:
        Keychain(Access(), environment).find("h", "app")
    assert_no_secret(raised.value)


@pytest.mark.parametrize("name", ["../x", "a/b", "/bin/sh", "-x", "a b", "", "x\n"])
def test_a_helper_has_a_plain_name(tmp_path: Path, environment: dict[str, str], name: str) -> None:
    config = json.dumps({"credHelpers": {"h": name or "../x"}}).encode()
    write(tmp_path / "home/.docker/config.json", config)
    with pytest.raises(InvalidContent, match="not the name of a credential helper"):
        Keychain(Access(), environment).find("h", "app")


def test_a_helper_that_is_not_there(
    tmp_path: Path, environment: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "home/.docker/config.json"
    write(path, json.dumps({"credsStore": "desktop", "auths": {"h": pair("entry")}}).encode())
    found = Keychain(Access(), environment).find("h", "app")
    assert found is not None
    assert found.user == "entry"
    assert f"docker-credential-desktop: not found, which {path} names" in caplog.text
    write(path, json.dumps({"credHelpers": {"h": "ecr-login"}}).encode())
    with pytest.raises(NotFound, match="docker-credential-ecr-login: not found"):
        Keychain(Access(), environment).find("h", "app")


def test_a_helper_has_to_answer_in_time(tmp_path: Path, environment: dict[str, str]) -> None:
    from ocistow.publish.distribution.credential_helper import ask

    for script in ("exec sleep 60", "echo '{}'; exec sleep 60 >&-", "sleep 3 & wait"):
        helper(tmp_path, "slow", script)
        with pytest.raises(RegistryError, match=r"no answer came in 0\.2 seconds"):
            ask("slow", "h", environment, 0.2)


KEYS = st.sampled_from(
    ["auths", "credHelpers", "credsStore", "h", "h/ns", "auth", "username", "identitytoken"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, JSON, max_size=4).map(json.dumps).map(str.encode) | st.binary())
def test_any_file_is_read_or_refused_in_one_line(raw: bytes) -> None:
    refusal = ""
    try:
        for legacy in (False, True):
            found = AuthFile.parse(raw, "f", legacy=legacy).find("h", "ns/app")
            assert found is None or isinstance(found.basic, str)
    except InvalidContent as error:
        refusal = str(error)
    assert "\n" not in refusal
    assert len(refusal) < 500


def test_a_file_that_may_not_be_read_is_passed_over(
    environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Have the system refuse it as it would refuse others than root."""
    path = write(tmp_path / "run/containers/auth.json", users({"h": "run"}))
    write(tmp_path / "home/.docker/config.json", users({"h": "docker"}))
    opened = Path.open

    def refuse(self: Path, mode: str = "r") -> IO[bytes]:
        if self == path:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return cast("IO[bytes]", opened(self, mode))

    monkeypatch.setattr(Path, "open", refuse)
    found = Keychain(Access(), environment).find("h", "app")
    assert found is not None
    assert found.user == "docker"
    assert f"{path} is passed over: permission denied" in caplog.text
    with pytest.raises(PermissionError):
        Keychain(Access(authfile=path), environment).find("h", "app")
