"""What a registry or a user may give as a URL: at worst one line comes of it."""

import functools
import itertools
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ocistow.oci.errors import InvalidContent, OcistowError, RegistryError
from ocistow.oci.reference import Reference
from ocistow.publish.access import Access
from ocistow.publish.copy import copy
from ocistow.publish.distribution.endpoint import Endpoint
from ocistow.publish.distribution.repository import Repository
from ocistow.publish.distribution.transport import Transport
from ocistow.publish.docker.engine import Engine
from ocistow.publish.docker.host import Host
from ocistow.publish.layout import LayoutSource
from ocistow.publish.registry import RegistrySink
from ocistow.testing.faults import Action, Fault, Status
from ocistow.testing.images import GeneratedImage, image_layout
from ocistow.testing.registry import Registry

NAME = Reference.parse("example.org/app:1")
MALFORMED = [
    "http://[bad",
    "//[::1",
    "http://.example/x",
    "http://a..b/x",
    "http://" + "a" * 80 + "/x",
    "http://h:99999/",
    "http:///x",
    "http://\xff\xfe..b/x",
    "http://ex ample/",
    "\xff\xfe",
]
NUMBERS = itertools.count()
LATIN = st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=80)
HOSTS = st.sampled_from(["127.0.0.1:1", "[::1", "[bad", "a..b", "a" * 64, ".example", ""]) | LATIN
LOCATIONS = LATIN | st.builds(
    "{}//{}/{}".format, st.sampled_from(["http:", "https:", ""]), HOSTS, LATIN
)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> GeneratedImage:
    return image_layout(tmp_path_factory.mktemp("layout"), layers=1)


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with Registry() as registry:
        yield registry


@pytest.fixture(scope="module", autouse=True)
def without_names() -> Iterator[None]:
    """Let no name be looked up, and no address be found but the registry's: `8` is one, too."""
    numeric = functools.partial(socket.getaddrinfo, flags=socket.AI_NUMERICHOST)

    def resolve(host: str, *arguments: int) -> object:
        found = numeric(host, *arguments)
        if host != "127.0.0.1":
            raise socket.gaierror(socket.EAI_NONAME, "name or service not known")
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", resolve)
        yield


def push(registry: Registry, image: GeneratedImage, method: str, action: Action) -> None:
    """Push to a new repository of a registry that answers one method like this."""
    registry.faults.clear()
    registry.faults.append(Fault(method, "/", action, times=None))
    name = f"app{next(NUMBERS)}"
    endpoint = Endpoint(registry.host, plain_http=True)
    with Transport(endpoint, Access(timeout=(2.0, 60.0)), lambda _: None) as transport:
        copy(LayoutSource(image.path), RegistrySink(Repository(transport, name), NAME))


def refusal(registry: Registry, image: GeneratedImage, method: str, action: Action) -> OcistowError:
    """Return what comes of such a push."""
    with pytest.raises(OcistowError) as raised:
        push(registry, image, method, action)
    assert_one_line(raised.value)
    return raised.value


def assert_one_line(error: OcistowError) -> None:
    assert "\n" not in str(error)
    assert len(str(error)) < 1000


@pytest.mark.parametrize("location", MALFORMED)
@pytest.mark.parametrize(("method", "status"), [("HEAD", 307), ("POST", 202), ("POST", 307)])
def test_a_malformed_location_gives_one_line(
    registry: Registry, image: GeneratedImage, method: str, status: int, location: str
) -> None:
    refusal(registry, image, method, Status(status, {"Location": location}))


@given(location=LOCATIONS)
@example(location="http://8/x")
def test_no_location_gives_more_than_one_line(
    registry: Registry, image: GeneratedImage, location: str
) -> None:
    for method, status in (("HEAD", 307), ("POST", 202)):
        try:
            push(registry, image, method, Status(status, {"Location": location}))
        except OcistowError as error:  # some lead back to where a blob may be put
            assert_one_line(error)


def test_what_is_no_url_is_invalid_content(registry: Registry, image: GeneratedImage) -> None:
    action = Status(307, {"Location": "http://[bad"})
    error = refusal(registry, image, "HEAD", action)
    assert isinstance(error, InvalidContent)
    assert str(error) == "not an HTTP URL: 'http://[bad'"


def test_the_words_of_a_library_become_part_of_a_line(
    registry: Registry, image: GeneratedImage
) -> None:
    error = refusal(registry, image, "HEAD", Status(307, {"Location": "http://.example/x"}))
    assert str(error) == "HEAD http://.example/x: not a host name"


@pytest.mark.parametrize("plain_http", [False, True])
@pytest.mark.parametrize("host", ["a..b:5000", f"{'a' * 80}.com:5000"])
def test_a_mistyped_registry_gives_one_line(host: str, plain_http: bool) -> None:
    with (
        Transport(Endpoint(host, plain_http=plain_http), Access()) as transport,
        pytest.raises(RegistryError, match=r": not a host name$"),
    ):
        Repository(transport, "x").manifest("1")


def test_a_mistyped_daemon_gives_one_line() -> None:
    with pytest.raises(RegistryError, match=r"^docker daemon at tcp://a\.\.b:1: not a host name$"):
        Engine(Host.parse("tcp://a..b:1"), (1.0, 1.0)).platform()


def test_a_path_too_long_for_a_socket_gives_one_line(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r": AF_UNIX path too long$"):
        Engine(Host.parse(f"unix://{tmp_path}/{'x' * 200}"), (1.0, 1.0)).platform()
