"""What the commands print, and that asking for help costs little."""

import json
import re
import subprocess
from pathlib import Path

import click
import pytest

from ocistow.cli.commands import COMMANDS, commands
from ocistow.cli.manual import manual
from ocistow.cli.reference import replaced
from ocistow.lifecycle.targets.layout import LayoutTarget
from ocistow.oci.descriptor import REF_NAME
from ocistow.oci.digest import Digest
from ocistow.oci.reference import Reference
from ocistow.publish.access import JOBS
from ocistow.publish.attached import Attached, Tagged, find_attached
from ocistow.store.store import Store
from ocistow.testing.images import artifact_layout, image_layout, index_layout, sparse_layout
from ocistow.testing.registry import Registry

from .conftest import Ocistow

ROOT = Path(__file__).parents[3]
NAMES = [name for names in COMMANDS.values() for name in names]


def ok(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def document(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    found: dict[str, object] = json.loads(ok(done))
    assert found["schemaVersion"] == 1
    return found


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_lists_every_command(run: Ocistow, word: str) -> None:
    text = ok(run(word))
    assert all(re.search(rf"^  {name} ", text, re.MULTILINE) for name in NAMES)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--json"], "are for --status"),
        (["--prometheus", "place", "--", "true"], "are for --status"),
        (["--status", "--json", "--prometheus"], "exclude each other"),
    ],
)
def test_a_mount_has_a_status_in_one_form_only(
    run: Ocistow, options: list[str], words: str
) -> None:
    done = run("mount", *options)
    assert done.returncode == 2
    assert re.fullmatch(f"ocistow: .*{words}.*\n", done.stderr)


def test_json_for_all_commands_does_not_keep_from_mounting(run: Ocistow, tmp_path: Path) -> None:
    done = run("mount", str(tmp_path / "absent"), OCISTOW_JSON="1")
    assert done.stderr == f"ocistow: {tmp_path / 'absent'}: No such file or directory\n"


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_help_and_version_import_nothing_heavy(run: Ocistow, word: str) -> None:
    look = (
        "import atexit, sys\n"
        "heavy = {'requests', 'urllib3', 'trio', 'pyfuse3', 'blake3', 'isal', 'sqlite3', 'ssl',\n"
        "         'ocistow.store.store', 'ocistow.publish.copy'}\n"
        "atexit.register(lambda: sys.stderr.write(' '.join(sorted(heavy & sys.modules.keys()))))"
    )
    done = run(word, first=look)
    assert ok(done)
    assert done.stderr == ""


def test_a_local_add_needs_no_network_library(tmp_path: Path, run: Ocistow) -> None:
    image_layout(tmp_path / "layout")
    look = (
        "import atexit, sys\n"
        "heavy = {'requests', 'urllib3', 'trio', 'pyfuse3', 'blake3'}\n"
        "atexit.register(lambda: sys.stderr.write(' '.join(sorted(heavy & sys.modules.keys()))))"
    )
    done = run("add", "oci:layout", "a", first=look)
    assert ok(done)
    assert done.stderr == ""


@pytest.mark.parametrize("name", NAMES)
def test_the_list_of_commands_says_what_they_say(name: str) -> None:
    context = click.Context(commands)
    command = commands.get_command(context, name)
    assert command is not None
    assert command.help is not None
    said = next(names[name] for names in COMMANDS.values() if name in names)
    assert command.help.split("\n\n")[0].replace("\n", " ").strip() == said


def test_the_reference_is_what_the_commands_say() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    assert text == replaced(text), "run python -m ocistow.cli.reference docs/cli.md"


def test_the_manual_page_is_what_the_commands_say() -> None:
    page, written = "docs/cli.md", "packaging/share/man/man1/ocistow.1"
    text = (ROOT / written).read_text()
    assert text == manual((ROOT / page).read_text()), (
        f"run python -m ocistow.cli.manual {page} {written}"
    )


@pytest.mark.parametrize("name", NAMES)
def test_variables_are_called_like_their_options(name: str) -> None:
    command = commands.get_command(click.Context(commands), name)
    assert command is not None
    for option in command.params:
        if isinstance(option, click.Option) and option.allow_from_autoenv:
            flag = max(option.opts, key=len).removeprefix("--").replace("-", "_")
            assert option.name == flag or option.envvar == f"OCISTOW_{flag.upper()}"


def test_every_option_is_a_variable(tmp_path: Path, run: Ocistow) -> None:
    image_layout(tmp_path / "layout")
    ok(run("add", "oci:layout", "a"))
    assert json.loads(ok(run("ls", OCISTOW_JSON="1")))["schemaVersion"] == 1
    assert run("add", "oci:layout", "a", OCISTOW_JOBS="0").returncode == 2
    assert run("ls", OCISTOW_STORE=str(tmp_path / "other")).returncode == 66
    assert ok(run("ls", OCISTOW_VERSION="1", OCISTOW_HELP="1")).startswith("NAME")


def test_the_file_is_read(tmp_path: Path, run: Ocistow) -> None:
    image_layout(tmp_path / "layout")
    (tmp_path / "c.toml").write_text(f'store = "{tmp_path}/elsewhere"\n')
    ok(run("--config", "c.toml", "add", "oci:layout", "a", OCISTOW_STORE=""))
    assert (tmp_path / "elsewhere" / "ocistow.json").exists()


def test_add_says_what_was_new(tmp_path: Path, run: Ocistow) -> None:
    image = image_layout(tmp_path / "layout")
    text = ok(run("add", "oci:layout", "app"))
    assert re.fullmatch(
        r"added index\.docker\.io/library/app:latest: 5 blobs new \(\d+\.\d kB\), 0 present, "
        rf"digest {image.manifest}\n",
        text,
    )
    assert "0 blobs new (0 B), 5 present" in ok(run("add", "oci:layout", "app:2"))
    found = document(run("add", "oci:layout", "app:3", "--json"))
    assert found["name"] == "index.docker.io/library/app:3"
    assert (found["sentBlobs"], found["presentBlobs"]) == (0, 5)


def test_a_whole_name_in_the_layout_is_taken(tmp_path: Path, run: Ocistow) -> None:
    image_layout(tmp_path / "layout", tag="example.com/some/app:7")
    assert ok(run("add", "oci:layout")).startswith("added example.com/some/app:7: ")


def test_a_registrys_name_is_taken(tmp_path: Path, run: Ocistow) -> None:
    image_layout(tmp_path / "layout")
    with Registry() as registry:
        target = f"docker://{registry.host}/app:1"
        ok(run("add", "oci:layout", "e.x/app:1"))
        assert ok(run("publish", "e.x/app:1", target)).startswith(f"pushed {target}: 5 sent (")
        assert ok(run("add", target)).startswith(f"added {registry.host}/app:1: 0 blobs new")
        found = json.loads(ok(run("publish", "e.x/app:1", target, "--json")))
    assert found["name"] == "e.x/app:1"
    [one] = found["published"]
    assert one["destination"] == target
    assert one["sentBlobs"] == 0


def test_what_a_copy_did_ends_in_the_digest(tmp_path: Path, run: Ocistow) -> None:
    image = image_layout(tmp_path / "layout")
    with Registry() as registry:
        target = f"docker://{registry.host}/app@{image.manifest}"
        for text in (
            ok(run("add", "oci:layout", f"e.x/app@{image.manifest}")),
            ok(run("publish", f"e.x/app@{image.manifest}", target)),
        ):
            assert text.endswith(f", digest {image.manifest}\n")
    text = ok(run("tag", f"e.x/app@{image.manifest}", f"e.x/other@{image.manifest}"))
    assert text.count(str(image.manifest)) == 1


@pytest.mark.parametrize("command", ["add", "publish"])
def test_help_says_how_to_hide_credentials_and_how_many_jobs_there_are(
    run: Ocistow, command: str
) -> None:
    text = " ".join(ok(run(command, "--help")).split())
    assert "OCISTOW_CREDS keeps them out of `ps`" in text
    assert f"[default: {JOBS}]" in text


def test_one_layer_is_no_layers(tmp_path: Path, run: Ocistow) -> None:
    image_layout(tmp_path / "layout", layers=1)
    ok(run("add", "oci:layout", "a"))
    assert ", 1 layer\n" in ok(run("inspect", "a"))


def test_ls_shows_references_and_other_paths(tmp_path: Path, run: Ocistow) -> None:
    image = image_layout(tmp_path / "layout")
    ok(run("add", "oci:layout", "e.x/app:1"))
    image_layout(tmp_path / "store" / "layouts" / "plain")
    index_layout(tmp_path / "multi")
    ok(run("add", "oci:multi", "e.x/multi:1"))
    lines = ok(run("ls")).splitlines()
    assert lines[0].split() == ["NAME", "DIGEST", "SIZE", "PLATFORM"]
    assert [line.split()[0] for line in lines[1:]] == ["e.x/app:1", "e.x/multi:1", "plain"]
    assert lines[2].endswith("linux/amd64, linux/arm64/v8")
    found = json.loads(ok(run("ls", "--json")))["images"]
    assert found[0]["digest"] == str(image.manifest)
    assert [entry["path"] for entry in found] == ["e.x/app/1", "e.x/multi/1", "plain"]


def test_ls_lists_what_words_mean(tmp_path: Path, run: Ocistow) -> None:
    image_layout(tmp_path / "layout")
    for name in ("e.x/a:1", "e.x/a:2", "e.x/b:1", "alpine"):
        ok(run("add", "oci:layout", name))
    assert ok(run("ls", "-q", "e.x/a")).split() == ["e.x/a:1", "e.x/a:2"]
    assert ok(run("ls", "-q", "alpine", "e.x/*:1")).split() == [
        "e.x/a:1",
        "e.x/b:1",
        "index.docker.io/library/alpine:latest",
    ]
    found = json.loads(ok(run("ls", "--json", "e.x/b")))["images"]
    assert [entry["name"] for entry in found] == ["e.x/b:1"]
    done = run("ls", "-q", "nobody", "e.x/b", "e.x/c")
    assert done.returncode == 66
    assert done.stdout == "e.x/b:1\n"
    assert done.stderr == "ocistow: nobody: not found\nocistow: e.x/c: not found\n"
    assert run("ls", "e.x/../b").returncode == 65
    assert run("ls", "-q", "--json").returncode == 2


def test_ls_of_an_empty_store_is_empty(tmp_path: Path, run: Ocistow) -> None:
    image_layout(tmp_path / "layout")
    ok(run("add", "oci:layout", "a"))
    ok(run("rm", "a"))
    assert ok(run("ls")) == ""
    assert document(run("ls", "--json"))["images"] == []


def test_ls_goes_on_after_a_broken_layout(tmp_path: Path, run: Ocistow) -> None:
    image_layout(tmp_path / "layout")
    for name in ("e.x/a:1", "e.x/b:1", "e.x/c:1"):
        ok(run("add", "oci:layout", name))
    (tmp_path / "store" / "layouts" / "e.x" / "b" / "1" / "index.json").write_text("{")
    done = run("ls")
    assert done.returncode == 65
    assert [line.split()[:2] for line in done.stdout.splitlines()][2] == ["e.x/b:1", "-"]
    assert len(done.stdout.splitlines()) == 4
    assert done.stderr.count("\n") == 1
    assert "e.x/b:1" in done.stderr


def test_inspect_shows_layers_with_their_diff_ids(tmp_path: Path, run: Ocistow) -> None:
    image = image_layout(tmp_path / "layout")
    ok(run("add", "oci:layout", "a"))
    text = ok(run("inspect", "a", "--bytes"))
    for layer, diff_id in zip(image.layers, image.diff_ids, strict=True):
        assert re.search(rf"^ *{image.blob(layer).stat().st_size}  {layer}  {diff_id}$", text, re.M)
    assert "Platform:    linux/amd64" in text
    assert run("inspect", "a", "--raw").stdout.encode() == image.blob(image.manifest).read_bytes()
    assert run("inspect", "a", "--config").stdout.encode() == image.blob(image.config).read_bytes()


def test_inspect_in_json(tmp_path: Path, run: Ocistow) -> None:
    image = sparse_layout(tmp_path / "layout")
    ok(run("add", "oci:layout", "a"))
    found = json.loads(ok(run("inspect", "a", "--json")))
    assert (found["schemaVersion"], found["path"]) == (1, "index.docker.io/library/a/latest")
    [one] = found["images"]
    assert one["configDigest"] == str(image.config)
    assert one["config"]["Cmd"] == ["/bin/sh"]
    assert [layer["digest"] for layer in one["layers"]] == [str(d) for d in image.layers]
    assert [layer["diffID"] for layer in one["layers"]] == [str(d) for d in image.diff_ids]
    assert [layer["present"] for layer in one["layers"]] == [False, False, True]
    [root] = found["roots"]
    assert root["annotations"] == {REF_NAME: "latest"}
    assert root["totalSize"] == one["totalSize"]
    assert "absent" in ok(run("inspect", "a"))


def test_inspect_of_several_platforms(tmp_path: Path, run: Ocistow) -> None:
    index = index_layout(tmp_path / "layout")
    ok(run("add", "oci:layout", "a"))
    text = ok(run("inspect", "a"))
    assert all(str(image.manifest) in text for image in index.images)
    arm = index.images[1]
    one = ok(run("inspect", "a", "--platform", "linux/arm64"))
    assert str(arm.manifest) in one
    assert str(index.images[0].manifest) not in one
    config = ok(run("inspect", "a", "--config", "--platform", "linux/arm64"))
    assert config.encode() == arm.blob(arm.config).read_bytes()
    assert run("inspect", "a", "--config").returncode == 65
    assert run("inspect", "a", "--platform", "linux/s390x").returncode == 66


def test_one_platform_can_be_taken(tmp_path: Path, run: Ocistow) -> None:
    index = index_layout(tmp_path / "layout")
    text = ok(run("add", "oci:layout", "a", "--platform", "linux/arm64"))
    assert text.endswith(f"digest {index.images[1].manifest}\n")


def test_du_counts_what_is_shared_once(tmp_path: Path, run: Ocistow) -> None:
    image_layout(tmp_path / "layout", layer_size=100_000)
    for name in ("e.x/a:1", "e.x/b:1"):
        ok(run("add", "oci:layout", name))
    lines = [line.split() for line in ok(run("du", "--bytes")).splitlines()]
    assert lines[0][:6] == ["NAME", "APPARENT", "ON", "DISK", "SHARED", "EXCLUSIVE"]
    assert lines[0][6:] == ["AMORTISED", "RECLAIMABLE"]
    assert [line[0] for line in lines[1:4]] == ["e.x/a:1", "e.x/b:1", "total"]
    assert lines[1][1:] == lines[2][1:]
    keys = ("apparent", "onDisk", "shared", "exclusive", "amortised", "reclaimable")
    for names in ((), ("e.x/a:1", "e.x/b:1")):
        total = json.loads(ok(run("du", "--json", *names)))["total"]
        assert total["shared"] > 100_000
        assert [total[key] for key in keys] == [int(number) for number in lines[3][1:]]
    found = json.loads(ok(run("du", "--json", "e.x/a:1")))
    [one] = found["images"]
    assert [one[key] for key in keys] == [int(number) for number in lines[1][1:]]
    exactly = json.loads(ok(run("du", "--json", "--exact", "e.x/a:1")))
    assert (exactly["images"], exactly["total"]["unreferencedBlobs"]) == ([one], 0)


def test_rm_says_what_stays(tmp_path: Path, run: Ocistow) -> None:
    image_layout(tmp_path / "layout")
    ok(run("add", "oci:layout", "e.x/a:1"))
    (tmp_path / "store" / "layouts" / "e.x" / "a" / "1" / "note").write_text("mine")
    done = run("rm", "e.x/a:1", "e.x/a:1")
    assert done.stdout == "removed e.x/a:1\n"
    assert "e.x/a/1: note" in done.stderr
    assert "blobs stay in the pool" in done.stderr
    ok(run("add", "oci:layout", "e.x/a:1"))
    tagged = json.loads(ok(run("tag", "--json", "e.x/a:1", "e.x/b:2")))
    assert tagged["name"] == "e.x/b:2"
    assert tagged["digest"] == json.loads(ok(run("ls", "--json")))["images"][0]["digest"]
    removed = run("rm", "--json", "e.x/a:1", "e.x/b:2")
    assert removed.stderr == ""
    assert json.loads(ok(removed))["removed"] == [
        {"name": "e.x/a:1", "path": "e.x/a/1", "left": ["note"]},
        {"name": "e.x/b:2", "path": "e.x/b/2", "left": []},
    ]
    assert "5 blobs of the pool that no image has" in ok(run("du"))


def test_names_are_completed(tmp_path: Path, run: Ocistow) -> None:
    image_layout(tmp_path / "layout")
    for name in ("e.x/a:1", "e.x/b:1", "f.x/c:1"):
        ok(run("add", "oci:layout", name))
    done = run(_OCISTOW_COMPLETE="bash_complete", COMP_WORDS="ocistow inspect e.x", COMP_CWORD="2")
    assert done.stdout.split() == ["plain,e.x/a:1", "plain,e.x/b:1"]


def test_log_lines_are_json(tmp_path: Path, run: Ocistow) -> None:
    image_layout(tmp_path / "layout")
    done = run("-v", "--log-format", "json", "add", "oci:layout", "a")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert {"time", "level", "logger", "message"} <= lines[0].keys()
    assert lines[-1]["level"] == "INFO"


def test_annotations_make_another_image_of_the_same_name(run: Ocistow, tmp_path: Path) -> None:
    image = image_layout(tmp_path / "layout", tag="1")
    ok(run("add", f"oci:{image.path}", "e.x/app:1"))
    said = ok(run("annotate", "e.x/app:1", "org.example.a=b=c", "gone=1"))
    new = re.fullmatch(rf"annotated e\.x/app:1: digest (\S+), was {image.manifest}\n", said)
    assert new is not None
    said = ok(run("annotate", "e.x/app:1", "gone-", "absent-"))
    newer = re.fullmatch(rf"annotated e\.x/app:1: digest (\S+), was {new[1]}\n", said)
    assert newer is not None
    assert newer[1] in ok(run("inspect", "e.x/app:1", "--json"))
    said = ok(run("annotate", "e.x/app:1", "org.example.a=b=c"))
    assert said == f"e.x/app:1: digest {newer[1]}, as before\n"


@pytest.mark.parametrize("word", ["no-value", "=value", "-", "a\udc80=b"])
def test_an_annotation_needs_a_key_and_a_value(run: Ocistow, word: str) -> None:
    done = run("annotate", "--", "e.x/app:1", word)
    assert done.returncode == 2
    assert "expected KEY=VALUE" in done.stderr


def test_artifacts_follow_an_image_that_is_annotated(run: Ocistow, tmp_path: Path) -> None:
    image = image_layout(tmp_path / "layout", tag="1")
    ok(run("add", f"oci:{image.path}", "e.x/app:1"))
    kind, listing = "application/x-chart", f"sha256-{image.manifest.encoded}"
    chart = artifact_layout(tmp_path / "chart", [b"chart"], tag="", kind=kind, subject=image)
    with Store.open(tmp_path / "store") as store:
        target = LayoutTarget(store.layouts, store=store)
        found = find_attached([image.manifest], tmp_path / "chart")
        [referrer] = found.referrers[image.manifest]
        attached = Attached(found.referrers, [Tagged("chart", referrer, tmp_path)])
        target.attach(Reference.parse("e.x/app:1"), image.manifest, attached)
    signature = artifact_layout(tmp_path / "signature", [b"signature"])
    ok(run("add", f"oci:{tmp_path / 'signature'}", f"e.x/app:{listing}.sig"))
    done = run("annotate", "e.x/app:1", "a=b")
    new = re.fullmatch(r"annotated e\.x/app:1: digest sha256:(\S+), was \S+\n", ok(done))
    assert new is not None
    assert f"still about {image.manifest}" in done.stderr
    assert str(signature) in done.stderr
    layouts = tmp_path / "store" / "layouts" / "e.x" / "app"
    digest = Digest("sha256", new[1])
    after = find_attached([digest], layouts / "1", layouts)
    assert not (layouts / listing).exists()
    [moved] = after.referrers[digest]
    assert moved.root.digest != chart
    assert moved.root.given["artifactType"] == kind
    assert [one.tag for one in after.tagged] == ["chart"]
    assert str(moved.root.digest) in ok(run("inspect", "e.x/app:chart", "--json"))
