"""Tables of TOML files: typed access to their members."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from ...oci.document import Object
from ...oci.errors import InvalidContent
from ...oci.wording import quoted
from .document import read_toml


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose members are looked up, each with the type that it must have.

    Every method raises `InvalidContent`, naming file and member, when a member has another type.

    Attributes:
        members: what it has.
        where: the file, and the names of the tables that it is in.
    """

    members: Object
    where: str

    @classmethod
    def read(cls, path: Path) -> Table | None:
        """Read a whole file; None if there is none.

        Raises:
            InvalidContent: it is not TOML.
        """
        document = read_toml(path)
        return None if document is None else cls(document, str(path))

    @classmethod
    def read_required(cls, path: Path) -> Table:
        """Read a whole file.

        Raises:
            InvalidContent: it is absent, or not TOML.
        """
        if (table := cls.read(path)) is None:
            raise InvalidContent(f"open {path}: no such file or directory")
        return table

    def __contains__(self, name: str) -> bool:
        return name in self.members

    def string(self, name: str) -> str:
        """Return a string; absent counts as empty."""
        value = self.members.get(name, "")
        if not isinstance(value, str):
            raise self._refused(name, value, "a string")
        return value

    def flag(self, name: str) -> bool:
        """Return a boolean; absent counts as false."""
        value = self.members.get(name, False)
        if not isinstance(value, bool):
            raise self._refused(name, value, "a boolean")
        return value

    def strings(self, name: str) -> tuple[str, ...]:
        """Return an array of strings; absent counts as empty."""
        found = self._array(name)
        for each in found:
            if not isinstance(each, str):
                raise self._refused(name, each, "an array of strings")
        return tuple(str(each) for each in found)

    def table(self, name: str) -> Table:
        """Return a table; absent counts as empty."""
        return self._inner(name, self.members.get(name, {}))

    def optional(self, name: str) -> Object | None:
        """Return the members of a table, or None if it is absent."""
        return self.table(name).members if name in self else None

    def tables(self, name: str) -> Iterator[Table]:
        """Yield the tables of an array; absent counts as empty."""
        return (self._inner(name, each) for each in self._array(name))

    def _array(self, name: str) -> list[object]:
        value = self.members.get(name, [])
        if not isinstance(value, list):
            raise self._refused(name, value, "an array")
        return cast("list[object]", value)

    def _inner(self, name: str, value: object) -> Table:
        if not isinstance(value, dict):
            raise self._refused(name, value, "a table")
        return Table(cast("Object", value), f"{self.where}: {name}")

    def _refused(self, name: str, value: object, expected: str) -> InvalidContent:
        return InvalidContent(f"{self.where}: {name} is not {expected}: {quoted(value)}")
