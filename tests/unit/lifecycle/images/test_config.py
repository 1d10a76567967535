import json
import time

import pytest

from ocistow.lifecycle.images.config import Config, History, moment
from ocistow.oci.digest import Digest
from ocistow.oci.errors import InvalidContent

LAYER = Digest.of(b"layer")

FULL = {  # with unknown members, and in another order than is written
    "config": {
        "Labels": {"b": "<&>", "a": ""},
        "Cmd": ["sh"],
        "Env": ["PATH=/bin", "A=1"],
        "Healthcheck": {"Retries": 3, "Test": ["CMD", "true"], "StartInterval": 9, "Interval": 5},
        "Volumes": {"/v": {}, "/a": {"x": 1}},
        "ExposedPorts": {},
        "Tty": False,
        "AttachStdin": True,
        "User": "1000:1000",
        "WorkingDir": "/",
        "Shell": [],
        "Memory": 1,
    },
    "container": "abc",
    "container_config": {"Cmd": ["x"]},
    "rootfs": {"diff_ids": [str(LAYER)], "type": "layers"},
    "os.version": "1",
    "variant": "v8",
    "os.features": ["f"],
    "os": "linux",
    "architecture": "arm64",
    "author": "me",
    "docker_version": "20",
    "history": [{"empty_layer": True, "comment": "c"}, {"created_by": "x", "author": "y"}],
}
WRITTEN = (  # by go-containerregistry v0.21.9
    '{"architecture":"arm64","author":"me","created":"0001-01-01T00:00:00Z","docker_version":"20",'
    '"history":[{"created":"0001-01-01T00:00:00Z","comment":"c","empty_layer":true},'
    '{"author":"y","created":"0001-01-01T00:00:00Z","created_by":"x"}],"os":"linux",'
    f'"rootfs":{{"type":"layers","diff_ids":["{LAYER}"]}},'
    '"config":{"AttachStdin":true,"Cmd":["sh"],'
    '"Healthcheck":{"Test":["CMD","true"],"Interval":5,"Retries":3},"Env":["PATH=/bin","A=1"],'
    '"Labels":{"a":"","b":"\\u003c\\u0026\\u003e"},"User":"1000:1000",'
    '"Volumes":{"/a":{},"/v":{}},"WorkingDir":"/"},'
    '"os.version":"1","variant":"v8","os.features":["f"]}'
)


def test_a_config_is_written_as_go_writes_it() -> None:
    assert Config.parse(json.dumps(FULL).encode()).encode().decode() == WRITTEN


def test_what_was_written_is_read_as_the_same() -> None:
    config = Config.parse(WRITTEN.encode())
    assert Config.parse(config.encode()) == config
    assert config.encode().decode() == WRITTEN


def test_the_smallest_config_is_written_whole() -> None:
    assert Config(diff_ids=(LAYER,)).encode().decode() == (
        '{"architecture":"amd64","created":"0001-01-01T00:00:00Z","os":"linux",'
        f'"rootfs":{{"type":"layers","diff_ids":["{LAYER}"]}},"config":{{}}}}'
    )


@pytest.mark.parametrize(
    "document",
    [
        {"rootfs": []},
        {"rootfs": {"diff_ids": ["sha256:0"]}},
        {"config": {"Env": [1]}},
        {"config": {"Labels": {"a": 1}}},
        {"config": {"Volumes": ["/v"]}},
        {"config": {"Healthcheck": {"Interval": 1.5}}},
        {"config": {"Healthcheck": {"Retries": 1 << 63}}},
        {"config": {"Tty": "yes"}},
        {"history": [1]},
        {"history": [{"empty_layer": 1}]},
        {"os": 1},
    ],
    ids=json.dumps,
)
def test_what_is_no_config_is_refused(document: object) -> None:
    with pytest.raises(InvalidContent):
        Config.parse(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("history", "normal"),
    [
        ((), (History(), History())),
        ((History("a"),), (History(), History())),
        (
            (History("a"), History("e", empty_layer=True), History("b")),
            (History("a"), History("b")),
        ),
        ((History("a"), History("b"), History("c")), (History(), History())),
    ],
    ids=["none", "too short", "with an empty layer", "too long"],
)
def test_a_history_is_made_to_fit_its_layers(
    history: tuple[History, ...], normal: tuple[History, ...]
) -> None:
    assert Config(diff_ids=(LAYER, LAYER), history=history).normal_history == normal


def test_all_of_a_saved_image_is_of_one_time() -> None:
    config = Config(diff_ids=(LAYER,), history=(History("a", "2020-01-01T00:00:00Z", comment="c"),))
    when = moment(None)
    assert when == "1980-01-01T00:00:01Z"
    kept = config.saved_at(when, with_history=True)
    assert (kept.created, kept.history) == (when, (History("a", when, comment="c"),))
    blank = config.saved_at(when, with_history=False)
    assert (blank.created, blank.history) == (when, (History(created=when),))


def test_a_variable_is_replaced_where_it_is() -> None:
    config = Config(env=("PATH=/bin", "A=1")).with_variable("PATH", "/cnb").with_variable("B", "2")
    assert config.env == ("PATH=/cnb", "A=1", "B=2")


def test_a_value_with_an_equals_sign_is_not_seen() -> None:
    config = Config(env=("A=b=c", "B=2", "C"))
    assert [config.variable(name) for name in ("A", "B", "C", "D")] == ["", "2", "", ""]


@pytest.mark.parametrize(
    ("zone", "text"),
    [
        ("UTC", "2021-07-01T12:00:00Z"),
        ("CET-1CEST,M3.5.0,M10.5.0/3", "2021-07-01T14:00:00+02:00"),
        ("NST3:30", "2021-07-01T08:30:00-03:30"),
    ],
)
def test_a_time_is_told_in_the_zone_of_the_process(
    zone: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert moment(1625140800) == text
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("seconds", [1 << 40, -1 << 40, 1 << 70])
def test_a_time_outside_all_years_is_refused(seconds: int) -> None:
    with pytest.raises(InvalidContent):
        moment(seconds)
