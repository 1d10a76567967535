"""registries.conf: which places an image has, and what may be wrong in the file."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocistow.oci.errors import InvalidContent, RegistryError
from ocistow.oci.reference import Reference
from ocistow.publish.distribution.certificates import Certificates, find_certificates
from ocistow.publish.distribution.keychain import auth_files
from ocistow.publish.distribution.registries import Registries

DIGEST = "sha256:" + "0" * 64


@pytest.fixture
def system(tmp_path: Path) -> Path:
    return tmp_path / "etc"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path / "home")}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def places(registries: Registries, text: str) -> list[str]:
    """Return where an image is looked for; a place that is insecure has a mark."""
    found = registries.sources(Reference.parse(text))
    return [f"{place.reference}{' !' if place.insecure else ''}" for place in found]


def read(system: Path, environment: dict[str, str], text: str) -> Registries:
    write(system / "registries.conf", text)
    return Registries.read(environment, system)


def test_a_home_that_is_another_users_has_no_settings() -> None:
    user = os.geteuid()
    with TemporaryDirectory() as name:
        home = Path(name)
        write(
            home / ".config" / "containers" / "registries.conf", "[[registry]]\nlocation = 'a.b'\n"
        )
        environment = {"HOME": name}
        assert Registries.read(environment, home.parent / "absent").entries
        assert home / ".dockercfg" in auth_files(environment)
        home.chmod(0)
        os.seteuid(user or 65534)  # as a phase does that root started
        try:
            assert not Registries.read(environment, home.parent / "absent").entries
            assert find_certificates("a.b", None, environment, ()) == Certificates()
            assert not [path for path in auth_files(environment) if path.is_relative_to(home)]
        finally:
            os.seteuid(user)
            home.chmod(0o700)


def test_without_a_file_a_reference_is_its_own_place(
    system: Path, environment: dict[str, str]
) -> None:
    registries = Registries.read(environment, system)
    assert places(registries, "alpine") == ["index.docker.io/library/alpine:latest"]
    assert registries.destination(Reference.parse("h:5000/a")).insecure is False


def test_mirrors_come_first_and_in_their_order(system: Path, environment: dict[str, str]) -> None:
    registries = read(
        system,
        environment,
        """
        unqualified-search-registries = ["docker.io"]
        [[registry]]
        location = "docker.io"
        [[registry.mirror]]
        location = "one.local:5000/hub"
        insecure = true
        [[registry.mirror]]
        location = "two.local"
        """,
    )
    assert places(registries, "alpine:3") == [
        "one.local:5000/hub/library/alpine:3 !",
        "two.local/library/alpine:3",
        "index.docker.io/library/alpine:3",
    ]
    assert places(registries, "docker.io.evil.org/x:1") == ["docker.io.evil.org/x:1"]
    pushed = registries.destination(Reference.parse("alpine:3"))
    assert str(pushed.reference) == "index.docker.io/library/alpine:3"


def test_a_mirror_may_be_for_digests_or_tags_only(
    system: Path, environment: dict[str, str]
) -> None:
    registries = read(
        system,
        environment,
        """
        [[registry]]
        location = "a.org"
        mirror-by-digest-only = true
        [[registry.mirror]]
        location = "digests.org"
        [[registry.mirror]]
        location = "tags.org"
        pull-from-mirror = "tag-only"
        [[registry.mirror]]
        location = "all.org"
        pull-from-mirror = "all"
        """,
    )
    assert places(registries, "a.org/x:1") == ["tags.org/x:1", "all.org/x:1", "a.org/x:1"]
    by_digest = [f"{host}/x@{DIGEST}" for host in ("digests.org", "all.org", "a.org")]
    assert places(registries, f"a.org/x@{DIGEST}") == by_digest


def test_the_longest_prefix_counts_and_is_replaced(
    system: Path, environment: dict[str, str]
) -> None:
    registries = read(
        system,
        environment,
        """
        [[registry]]
        prefix = "a.org"
        location = "b.org/all"
        [[registry]]
        prefix = "a.org/ns"
        location = "c.org"
        insecure = true
        [[registry]]
        prefix = "*.w.org"
        insecure = true
        """,
    )
    assert places(registries, "a.org/x/y:1") == ["b.org/all/x/y:1"]
    assert places(registries, "a.org/ns/y:1") == ["c.org/y:1 !"]
    assert places(registries, "a.org/nsx/y:1") == ["b.org/all/nsx/y:1"]
    assert places(registries, "deep.in.w.org:5000/y:1") == ["deep.in.w.org:5000/y:1 !"]
    assert places(registries, "w.org/y:1") == ["w.org/y:1"]
    assert places(registries, "x.org/a.w.org/y:1") == ["x.org/a.w.org/y:1"]
    place = registries.destination(Reference.parse("a.org/ns/y:1"))
    assert (str(place.reference), place.insecure) == ("a.org/ns/y:1", True)


def test_what_is_blocked_is_neither_read_nor_written(
    system: Path, environment: dict[str, str]
) -> None:
    text = '[[registry]]\nlocation = "a.org"\nblocked = true\n'
    registries = read(system, environment, f'{text}[[registry]]\nlocation = "a.org/free"')
    for ask in (registries.sources, registries.destination):
        with pytest.raises(RegistryError, match=r"^a\.org: blocked by .*/registries\.conf$"):
            ask(Reference.parse("a.org/x"))
        ask(Reference.parse("a.org/free/x"))


def test_later_files_replace_entries(system: Path, environment: dict[str, str]) -> None:
    def conf(location: str) -> str:
        return f'[[registry]]\nprefix = "a.org"\nlocation = "{location}"\n'

    def place() -> str:
        [found] = places(Registries.read(environment, system), "a.org/x:1")
        return found

    user = Path(environment["HOME"], ".config/containers")
    write(system / "registries.conf", conf("system.org"))
    assert place() == "system.org/x:1"
    write(system / "registries.conf.d/10.conf", conf("first.org"))
    write(system / "registries.conf.d/20.conf", conf("second.org"))
    write(system / "registries.conf.d/30.txt", "not read")
    assert place() == "second.org/x:1"
    write(user / "registries.conf.d/05.conf", conf("dropped.org"))
    assert place() == "dropped.org/x:1"
    (user / "registries.conf.d/05.conf").unlink()
    write(user / "registries.conf", conf("user.org"))
    assert place() == "user.org/x:1"
    environment["CONTAINERS_REGISTRIES_CONF"] = str(system / "none.conf")
    with pytest.raises(FileNotFoundError, match=r"none\.conf"):
        place()


def test_insecure_registries_of_the_environment(system: Path, environment: dict[str, str]) -> None:
    environment["CNB_INSECURE_REGISTRIES"] = " h:5000 ,other.org,"
    registries = Registries.read(environment, system)
    assert places(registries, "h:5000/x:1") == ["h:5000/x:1 !"]
    assert places(registries, "h:5001/x:1") == ["h:5001/x:1"]


@pytest.mark.parametrize(
    ("prefix", "name", "insecure"),
    [
        ("a.org", "a.org/team/x:1", True),
        ("a.org", "a.org:5000/x:1", True),
        ("a.org:5000", "a.org:5000/x:1", True),
        ("a.org:5000", "a.org/x:1", False),
        ("a.org:50", "a.org:5000/x:1", False),
        ("a.org", "a.org.evil.org/x:1", False),
        ("a.org/team", "a.org/team/x:1", True),
        ("a.org/team/x:1", "a.org/team/x:1", True),
        ("a.org/other", "a.org/team/x:1", False),
    ],
)
def test_insecure_is_what_begins_like_that(
    system: Path, environment: dict[str, str], prefix: str, name: str, insecure: bool
) -> None:
    environment["CNB_INSECURE_REGISTRIES"] = prefix
    registries = Registries.read(environment, system)
    assert places(registries, name) == [f"{name} !" if insecure else name]


@pytest.mark.parametrize(
    "text",
    [
        "[[registry",
        "registry = 1",
        "registry = [1]",
        "[[registry]]",
        '[[registry]]\nprefix = "a.org"',
        "[[registry]]\nlocation = 1",
        '[[registry]]\nlocation = "a.org"\ninsecure = "yes"',
        '[[registry]]\nlocation = "a.org"\nmirror = "b.org"',
        '[[registry]]\nlocation = "a.org"\n[[registry.mirror]]\ninsecure = true',
        '[[registry]]\nlocation = "a.org"\n[[registry.mirror]]\nlocation = "b.org"\n'
        'pull-from-mirror = "never"',
        "\xff",
    ],
)
def test_a_malformed_file_is_named(system: Path, environment: dict[str, str], text: str) -> None:
    system.mkdir()
    (system / "registries.conf").write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidContent, match=r"etc/registries\.conf") as raised:
        Registries.read(environment, system)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("location", ["bare", "bare/ns", "a.org/../b", "a.org/UPPER"])
def test_a_location_is_a_registry(system: Path, environment: dict[str, str], location: str) -> None:
    text = f'[[registry]]\nprefix = "a.org"\nlocation = "{location}"'
    with pytest.raises(InvalidContent):
        read(system, environment, text).sources(Reference.parse("a.org/x"))


@given(
    st.lists(
        st.sampled_from(
            [
                "[[registry]]",
                "[[registry.mirror]]",
                "[registry]",
                'location = "a.org"',
                'location = "b.org/x"',
                'prefix = "*.org"',
                'prefix = "a.org/ns"',
                "insecure = true",
                "blocked = true",
                "blocked = 1",
                'pull-from-mirror = "tag-only"',
                "x = {y = [1]}",
            ]
        ),
        max_size=8,
    ).map("\n".join)
    | st.text(max_size=40)
)
def test_any_file_gives_places_or_one_line(text: str) -> None:
    refusal = ""
    with TemporaryDirectory() as directory:
        file = Path(directory, "registries.conf")
        file.write_bytes(text.encode())
        try:
            registries = Registries.read({"HOME": directory}, Path(directory))
            assert registries.sources(Reference.parse("a.org/ns/app:1"))[-1].reference.tag == "1"
        except (InvalidContent, RegistryError) as error:
            refusal = str(error)
    assert "\n" not in refusal
