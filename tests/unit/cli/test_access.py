"""What the options that reach registries and daemons mean."""

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from ocistow.cli.access import access_options
from ocistow.publish.access import Access

from .conftest import environment


def parsed(*arguments: str, **variables: str) -> Access:
    """Return what a command with these options would use."""
    found: list[Access] = []

    def note(access: Access) -> None:
        found.append(access)

    command = click.command(context_settings={"auto_envvar_prefix": "OCISTOW"})(
        access_options(note)
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        command.main([*arguments], standalone_mode=False)
    return found[0]


def test_without_options_everything_is_looked_up() -> None:
    assert parsed() == Access()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--creds", "u:p:q"], Access(credentials=("u", "p:q"))),
        (["--registry-token", "t"], Access(registry_token="t")),
        (["--authfile", "a.json"], Access(authfile=Path("a.json"))),
        (["--token-host", "a", "--token-host", "b:1"], Access(token_hosts=frozenset(["a", "b:1"]))),
        (["--cert-dir", "certs"], Access(cert_dir=Path("certs"))),
        (["--tls-verify=false"], Access(tls_verify=False)),
        (["--tls-verify=true"], Access()),
        (["--tls-verify"], Access()),
        (["--no-tls-verify"], Access(tls_verify=False)),
        (["--plain-http"], Access(plain_http=True)),
        (["--docker-host", "unix:///s"], Access(docker_host="unix:///s")),
        (["--containerd-address", "/s"], Access(containerd="/s")),
        (["-n", "k8s.io"], Access(namespace="k8s.io")),
    ],
)
def test_each_option_has_its_meaning(arguments: list[str], expected: Access) -> None:
    assert parsed(*arguments) == expected


def test_variables_mean_the_same() -> None:
    assert parsed(OCISTOW_TLS_VERIFY="false", OCISTOW_CREDS="u:p") == Access(
        credentials=("u", "p"), tls_verify=False
    )
    assert parsed(OCISTOW_TOKEN_HOST="a b:1").token_hosts == {"a", "b:1"}
    assert parsed(CONTAINERD_NAMESPACE="moby").namespace == "moby"
    assert parsed(CONTAINERD_NAMESPACE="moby", OCISTOW_NAMESPACE="mine").namespace == "mine"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--creds", "user"],
        ["--creds", ":secret"],
        ["--password-stdin"],
        ["--creds", "user:secret", "--password-stdin"],
        ["--creds", "user:secret", "--registry-token", "secret"],
        ["--tls-verify=perhaps"],
    ],
)
def test_what_contradicts_itself_is_refused_without_the_secret(arguments: list[str]) -> None:
    with pytest.raises(click.UsageError) as refused:
        parsed(*arguments)
    assert "secret" not in refused.value.format_message()


@pytest.mark.parametrize(
    ("stdin", "said"),
    [("secret\n", "secret"), ("se cret", "se cret"), ("", None), ("two\nlines\n", None)],
)
def test_a_password_comes_on_stdin(tmp_path: Path, stdin: str, said: str | None) -> None:
    program = (
        "import json\nfrom ocistow.cli.access import access_options\nimport click\n"
        "click.command()(access_options(lambda access: print(json.dumps(access.credentials))))()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "--creds", "user", "--password-stdin"],
        input=stdin,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
    )
    if said is None:
        assert done.returncode == 2
    else:
        assert json.loads(done.stdout) == ["user", said]
