"""How often, and how long, one publish tries again."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from ...oci.errors import RegistryUnavailable

TRIES = 4  # of one request
BACKOFF = 0.5  # seconds that the first wait has at most; doubled for each further one
MAX_WAIT = 30.0  # seconds; whoever asks for more gets an error instead
MAX_RETRIES = 20  # of all requests under way: a registry that is down gets no storm
MAX_WAITING = 120.0  # seconds, of all of them


class Retries:
    """A budget of tries and seconds that all requests of one publish share. Thread-safe.

    Waits are random, from none to all of the backoff ("full jitter"): clients whom the
    same event made fail do not come back together.
    """

    def __init__(
        self,
        sleep: Callable[[float], None] = time.sleep,
        fraction: Callable[[], float] = random.random,
    ) -> None:
        self._sleep = sleep
        self._fraction = fraction
        self._lock = threading.Lock()
        self._left = MAX_RETRIES
        self._seconds = MAX_WAITING

    def wait(self, failure: RegistryUnavailable, tries: int) -> float:
        """Wait before trying again what was tried `tries` times.

        Returns:
            How many seconds that took of the budget.

        Raises:
            RegistryUnavailable: it is not to be tried again; `failure`, but for a wait that
                is too long, which is named.
        """
        if tries >= TRIES:
            raise failure
        if failure.retry_after > MAX_WAIT:
            asked = f"it asks to wait {failure.retry_after:.0f} seconds, over {MAX_WAIT:.0f}"
            words = "; ".join(filter(None, (failure.message, asked)))
            raise RegistryUnavailable(
                failure.request, failure.status, failure.codes, words, failure.retry_after
            ) from failure
        backoff: float = BACKOFF * 2 ** (tries - 1)
        seconds = max(failure.retry_after, backoff * self._fraction())
        with self._lock:
            if self._left == 0 or seconds > self._seconds:
                raise failure
            self._left -= 1
            self._seconds -= seconds
        self._sleep(seconds)
        return seconds

    def restore(self, tries: int, seconds: float) -> None:
        """Give back what led to success: it is failures without end that are limited."""
        with self._lock:
            self._left += tries
            self._seconds += seconds
