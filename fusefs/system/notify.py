"""What a service manager is told of the process that it started. Source: sd_notify(3)."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Service:
    """A service manager, or none. Thread-safe.

    Attributes:
        address: of its socket; a leading `@` is the abstract name space, empty is nobody.
        interval: seconds between the signs of life that it wants; 0 when it wants none.
    """

    address: str = ""
    interval: float = 0.0

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """Return who is to be told, by what systemd puts into the environment.

        Twice as many signs of life are sent as must come, as sd_watchdog_enabled(3) advises.
        """
        address = environment.get("NOTIFY_SOCKET", "")
        limit, process = (environment.get(f"WATCHDOG_{name}", "") for name in ("USEC", "PID"))
        is_watched = limit.isdecimal() and process in ("", str(os.getpid()))
        return cls(address, int(limit) / 2e6 if is_watched and address else 0.0)

    def tell(self, **states: str) -> None:
        """Send assignments such as READY=1. That nobody listens is no reason to end."""
        if not self.address:
            return
        message = "\n".join(f"{name}={value}" for name, value in states.items())
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto(message.encode(), address)
        except OSError as error:
            log.warning("cannot tell %s: %s", self.address, error)


NOBODY = Service()
