"""An image's config as Go's lifecycle writes it, to the byte.

Source: image-spec, config.md; go-containerregistry, pkg/v1/config.go; imgutil, cnb_image.go.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ...oci.digest import Digest
from ...oci.document import (
    Object,
    as_object,
    flag,
    inner,
    members,
    parse_object,
    string,
    strings,
    texts,
)
from ...oci.errors import InvalidContent
from ...oci.platform import Platform
from ..files.analyzed import Target
from ..files.labels import BASE_ID, DISTRO_NAME, DISTRO_VERSION
from ..golang.json import Struct, encode

_NO_TIME = "0001-01-01T00:00:00Z"
_MOMENT = "1980-01-01T00:00:01Z"  # of everything that is to be reproducible
_LAST_YEAR = 9999


@dataclass(frozen=True, slots=True)
class History:
    """How one layer came to be."""

    created_by: str = ""
    created: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """How an image runs, and what its layers are uncompressed.

    What Go's lifecycle does not know of a config is not here either: it would drop it.

    Attributes:
        created: a time of RFC 3339, as is that of a history entry; empty for none.
        history: one entry a layer, unless the image says otherwise.
        env: in its order, `NAME=value` each.
        labels: of the container.
        container: the other members of `config`, by their names there.
    """

    architecture: str = "amd64"
    os: str = "linux"
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()
    author: str = ""
    docker_version: str = ""
    created: str = ""
    diff_ids: tuple[Digest, ...] = ()
    history: tuple[History, ...] = ()
    env: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    container: Object = field(default_factory=dict[str, object])

    @property
    def target(self) -> Target:
        """What the image is for, as its labels say, too."""
        return Target(
            self.os,
            self.architecture,
            self.variant,
            distro_name=self.labels.get(DISTRO_NAME, ""),
            distro_version=self.labels.get(DISTRO_VERSION, ""),
            id=self.labels.get(BASE_ID, ""),
        )

    @classmethod
    def parse(cls, raw: bytes, what: str = "image config") -> Config:
        """Read an image config; `what` names it in messages.

        Raises:
            InvalidContent: it is not one.
        """
        return cls.from_document(parse_object(raw, what), what)

    @classmethod
    def from_document(cls, document: Object, what: str) -> Config:
        """Take an image config from its JSON object, likewise."""
        rootfs = inner(document, "rootfs", what)
        container, where = inner(document, "config", what), f"config of {what}"
        return cls(
            architecture=string(document, "architecture", what),
            os=string(document, "os", what),
            variant=string(document, "variant", what),
            os_version=string(document, "os.version", what),
            os_features=texts(document, "os.features", what),
            author=string(document, "author", what),
            docker_version=string(document, "docker_version", what),
            created=string(document, "created", what),
            diff_ids=tuple(map(Digest.parse, texts(rootfs, "diff_ids", f"rootfs of {what}"))),
            history=_history(document, what),
            env=texts(container, "Env", where),
            labels=strings(container, "Labels", where),
            entrypoint=texts(container, "Entrypoint", where),
            cmd=texts(container, "Cmd", where),
            working_dir=string(container, "WorkingDir", where),
            user=string(container, "User", where),
            container={
                name: value
                for name, read in _CONTAINER.items()
                if name not in _OWN and _says((value := read(container, name, where)), name)
            },
        )

    @property
    def platform(self) -> Platform:
        """What it runs on."""
        return Platform(self.os, self.architecture, self.variant, self.os_version)

    @property
    def normal_history(self) -> tuple[History, ...]:
        """One entry a layer: empty layers have none, and a history of other length counts not."""
        history = tuple(entry for entry in self.history if not entry.empty_layer)
        if len(history) != len(self.diff_ids):
            return (History(),) * len(self.diff_ids)
        return history

    def variable(self, name: str) -> str:
        """Return what the environment says; nothing if the value has a `=`, as in imgutil."""
        for entry in self.env:
            if entry.count("=") == 1 and entry.partition("=")[0] == name:
                return entry.partition("=")[2]
        return ""

    def with_variable(self, name: str, value: str) -> Config:
        """Set a variable of the environment: where it was, or at the end."""
        known = [entry.partition("=")[0] for entry in self.env]
        if self.os == "windows":
            known = [entry.upper() for entry in known]
            wanted = name.upper()
        else:
            wanted = name
        at = known.index(wanted) if wanted in known else len(known)
        entry = (f"{name}={value}",)
        return replace(self, env=self.env[:at] + entry + self.env[at + 1 :])

    def saved_at(self, created: str, *, with_history: bool) -> Config:
        """Return what is saved: made at one time, as each of its layers was.

        Without a history, that time is all that is known of a layer.
        """
        history = self.normal_history if with_history else (History(),) * len(self.diff_ids)
        return replace(
            self,
            created=created,
            history=tuple(replace(entry, created=created) for entry in history),
        )

    def encode(self) -> bytes:
        """Return the config's bytes."""
        container: dict[str, object] = {
            **self.container,
            "Env": self.env,
            "Labels": self.labels,
            "Entrypoint": self.entrypoint,
            "Cmd": self.cmd,
            "WorkingDir": self.working_dir,
            "User": self.user,
        }
        document = Struct(
            {
                "architecture": self.architecture,
                "author": self.author,
                "created": self.created or _NO_TIME,
                "docker_version": self.docker_version,
                "history": [_entry(entry) for entry in self.history],
                "os": self.os,
                "rootfs": Struct(type="layers", diff_ids=[str(d) for d in self.diff_ids]),
                "config": Struct(
                    (name, value)
                    for name in _CONTAINER
                    if _says((value := container.get(name)), name)
                ),
                "os.version": self.os_version,
                "variant": self.variant,
                "os.features": self.os_features,
            }
        )
        optional = ("author", "docker_version", "history", "os.version", "variant", "os.features")
        return encode(document.without_empty(*optional))


def moment(seconds: int | None) -> str:
    """Return the time of an image: SOURCE_DATE_EPOCH's, or the one that all images have.

    It is told in the time zone of the process, as Go's lifecycle does.

    Raises:
        InvalidContent: it is not within the years that JSON can have.
    """
    if seconds is None:
        return _MOMENT
    try:
        local = time.localtime(seconds)
    except (OverflowError, OSError, ValueError):
        local = None
    if local is None or not 0 <= local.tm_year <= _LAST_YEAR:
        raise InvalidContent(f"{seconds} seconds after 1970 are no year from 0 to {_LAST_YEAR}")
    hours, minutes = divmod(abs(local.tm_gmtoff) // 60, 60)
    sign = "-" if local.tm_gmtoff < 0 else "+"
    zone = f"{sign}{hours:02}:{minutes:02}" if local.tm_gmtoff else "Z"
    year, month, day, hour, minute, second = local[:6]
    return f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{zone}"


def _says(value: object, name: str) -> bool:
    """Tell whether a member of `config` is written: an empty health check is no missing one."""
    return bool(value) or (name == _HEALTH and value is not None)


def _entry(history: History) -> Struct:
    return Struct(
        author=history.author,
        created=history.created or _NO_TIME,
        created_by=history.created_by,
        comment=history.comment,
        empty_layer=history.empty_layer,
    ).without_empty("author", "created_by", "comment", "empty_layer")


def _history(document: Object, what: str) -> tuple[History, ...]:
    found: list[History] = []
    for value in members(document.get("history"), f"history of {what}"):
        entry = as_object(value, f"history of {what}")
        found.append(
            History(
                created_by=string(entry, "created_by", f"history of {what}"),
                created=string(entry, "created", f"history of {what}"),
                author=string(entry, "author", f"history of {what}"),
                comment=string(entry, "comment", f"history of {what}"),
                empty_layer=flag(entry, "empty_layer", f"history of {what}"),
            )
        )
    return tuple(found)


def _number(document: Object, key: str, what: str) -> int:
    value = document.get(key)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not -1 << 63 <= value < 1 << 63:
        raise InvalidContent(f"{key} of {what} is not a number of 64 bits")
    return value


def _names(document: Object, key: str, what: str) -> Object:
    """Return a member whose keys alone say something."""
    return {name: {} for name in inner(document, key, what)}


def _health(document: Object, key: str, what: str) -> Object | None:
    if document.get(key) is None:
        return None
    check = inner(document, key, what)
    where = f"{key} of {what}"
    found = Struct(Test=texts(check, "Test", where))
    for name in ("Interval", "Timeout", "StartPeriod", "Retries"):
        found[name] = _number(check, name, where)
    return found.without_empty(*found)


_HEALTH = "Healthcheck"
_CONTAINER: dict[str, Callable[[Object, str, str], object]] = {  # in the order of writing
    "AttachStderr": flag,
    "AttachStdin": flag,
    "AttachStdout": flag,
    "Cmd": texts,
    _HEALTH: _health,
    "Domainname": string,
    "Entrypoint": texts,
    "Env": texts,
    "Hostname": string,
    "Image": string,
    "Labels": strings,
    "OnBuild": texts,
    "OpenStdin": flag,
    "StdinOnce": flag,
    "Tty": flag,
    "User": string,
    "Volumes": _names,
    "WorkingDir": string,
    "ExposedPorts": _names,
    "ArgsEscaped": flag,
    "NetworkDisabled": flag,
    "MacAddress": string,
    "StopSignal": string,
    "Shell": texts,
}
_OWN = {"Cmd", "Entrypoint", "Env", "Labels", "User", "WorkingDir"}  # attributes of Config
