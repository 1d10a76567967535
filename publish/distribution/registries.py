"""What an administrator says about registries: other places, mirrors, and whom not to check.

Source: containers-registries.conf(5), version 2, without short names and search lists.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...oci.document import Object, as_object, members, parse_table, string
from ...oci.errors import InvalidContent, RegistryError
from ...oci.reference import DEFAULT_REGISTRY, Reference
from ...oci.wording import quoted
from ..access import home_of

SYSTEM = Path("/etc/containers")
MAX_FILE = 1 << 20  # bytes

_HUB = "docker.io"  # what this file calls the registry that is index.docker.io elsewhere
_PULLS = ("all", "digest-only", "tag-only")


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image can be had.

    Attributes:
        insecure: whether its certificate is not checked, or HTTP is fine.
    """

    reference: Reference
    insecure: bool = False


@dataclass(frozen=True, slots=True)
class Mirror:
    """Another place for the same images.

    Attributes:
        pull: one of `all`, `digest-only` and `tag-only`.
    """

    location: str
    insecure: bool
    pull: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One `[[registry]]`.

    Attributes:
        prefix: `host[:port][/namespace]`, or `*.domain`, of the references it is about.
        location: what takes the place of the prefix; the same when there is nothing else.
        file: where it is written.
    """

    prefix: str
    location: str
    insecure: bool
    blocked: bool
    mirrors: tuple[Mirror, ...]
    file: str

    def matched(self, text: str) -> int:
        """Return how much of a reference's text the prefix stands for; 0 when it is another's."""
        if not self.prefix.startswith("*."):
            end = len(self.prefix) if text.startswith(self.prefix) else 0
        else:
            domain = self.prefix[1:]
            at = text.find(domain)
            end = at + len(domain) if at > 0 and "/" not in text[:at] else 0
        return end if text[end : end + 1] in ("", "/", ":", "@") else 0


@dataclass(frozen=True, slots=True)
class Registries:
    """What registries.conf, its drop-ins and CNB_INSECURE_REGISTRIES say.

    Attributes:
        insecure: `host[:port][/…]`, with which a reference begins that need not be secure.
    """

    entries: tuple[Entry, ...] = ()
    insecure: frozenset[str] = frozenset()

    @classmethod
    def read(cls, environment: Mapping[str, str], system: Path = SYSTEM) -> Registries:
        """Read what the environment and the user's and the `system`'s directories have.

        Raises:
            InvalidContent: a file is malformed.
            OSError: a file cannot be read, or the one that the environment names is absent.
        """
        entries: dict[str, Entry] = {}
        for path in _files(environment, system):
            for entry in _parse(path):
                entries[entry.prefix] = entry  # a later file replaces it as a whole
        prefixes = environment.get("CNB_INSECURE_REGISTRIES", "").split(",")
        return cls(tuple(entries.values()), frozenset(filter(None, map(str.strip, prefixes))))

    def sources(self, reference: Reference) -> list[Place]:
        """Return where to pull from, in order: the mirrors, and then the place itself.

        Raises:
            InvalidContent: a place is no registry.
            RegistryError: it is blocked.
        """
        text = _text(reference)
        entry = self._entry(text)
        if entry is None:
            return [self._place(reference, insecure=False)]
        rest = text[entry.matched(text) :]
        places = [
            self._place(_reference(mirror.location, rest, entry.file), insecure=mirror.insecure)
            for mirror in entry.mirrors
            if mirror.pull != ("tag-only" if reference.digest else "digest-only")
        ]
        if entry.location:
            reference = _reference(entry.location, rest, entry.file)
        return [*places, self._place(reference, insecure=entry.insecure)]

    def destination(self, reference: Reference) -> Place:
        """Return where to push to: always the place that is named.

        Raises:
            RegistryError: it is blocked.
        """
        entry = self._entry(_text(reference))
        return self._place(reference, insecure=entry is not None and entry.insecure)

    def _entry(self, text: str) -> Entry | None:
        """Return what is said about a reference: the longest prefix counts."""
        entry = max(self.entries, key=lambda entry: entry.matched(text), default=None)
        if entry is None or not entry.matched(text):
            return None
        if entry.blocked:
            raise RegistryError(entry.prefix, 0, (), f"blocked by {entry.file}")
        return entry

    def _place(self, reference: Reference, *, insecure: bool) -> Place:
        return Place(reference, insecure or any(_begins(reference, p) for p in self.insecure))


def _begins(reference: Reference, prefix: str) -> bool:
    """Tell whether a reference begins with `host[:port][/…]`, whose host is all of its own."""
    host, _, path = prefix.partition("/")
    name = reference.registry if ":" in host else reference.registry.partition(":")[0]
    rest = f"{reference.repository}{'@' if reference.digest else ':'}{reference.identifier}"
    return name == host and rest.startswith(path)


def _files(environment: Mapping[str, str], system: Path) -> Iterator[Path]:
    """Yield the file and then the drop-ins; a file of the user hides the system's directory."""
    home = home_of(environment)
    user = home / ".config" / "containers" if home else None
    name = "registries.conf"
    directories = [system, user] if user else [system]
    if given := environment.get("CONTAINERS_REGISTRIES_CONF"):
        yield Path(given)
    elif user and (user / name).exists():
        yield user / name
        directories = [user]
    elif (system / name).exists():
        yield system / name
    for directory in directories:
        yield from sorted((directory / f"{name}.d").glob("*.conf"))


def _parse(path: Path) -> Iterator[Entry]:
    with path.open("rb") as file:
        raw = file.read(MAX_FILE + 1)
    document = parse_table(raw, str(path), MAX_FILE)
    for value in members(document.get("registry"), f"registry of {path}"):
        yield _entry(value, path)


def _entry(value: object, path: Path) -> Entry:
    what = f"a registry of {path}"
    table = as_object(value, what)
    location = string(table, "location", what).rstrip("/")
    prefix = string(table, "prefix", what).rstrip("/") or location
    if not prefix or not (location or prefix.startswith("*.")):
        raise InvalidContent(f"{what} has no location")
    pull = "digest-only" if _flag(table, "mirror-by-digest-only", what) else "all"
    return Entry(
        prefix,
        location,
        _flag(table, "insecure", what),
        _flag(table, "blocked", what),
        tuple(
            _mirror(mirror, pull, f"a mirror of {quoted(prefix)} in {path}")
            for mirror in members(table.get("mirror"), f"mirror of {what}")
        ),
        str(path),
    )


def _mirror(value: object, pull: str, what: str) -> Mirror:
    table = as_object(value, what)
    location = string(table, "location", what).rstrip("/")
    if not location:
        raise InvalidContent(f"{what} has no location")
    pull = string(table, "pull-from-mirror", what) or pull
    if pull not in _PULLS:
        raise InvalidContent(f"pull-from-mirror of {what}: expected one of {', '.join(_PULLS)}")
    return Mirror(location, _flag(table, "insecure", what), pull)


def _flag(table: Object, key: str, what: str) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise InvalidContent(f"{key} of {what} is not true or false: {quoted(value)}")
    return value


def _text(reference: Reference) -> str:
    text = str(reference)
    return text.replace(DEFAULT_REGISTRY, _HUB, 1) if text.startswith(DEFAULT_REGISTRY) else text


def _reference(location: str, rest: str, file: str) -> Reference:
    text = f"{location}{rest}"
    host = text.partition("/")[0]
    if host != "localhost" and not {".", ":"} & set(host):
        # it would be read as a repository of Docker Hub
        raise InvalidContent(f"{file}: not a registry: {quoted(location)}")
    return Reference.parse(text)
