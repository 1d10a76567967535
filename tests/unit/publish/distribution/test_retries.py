"""How often, and how long, one publish tries again."""

import time
from collections.abc import Callable
from email.utils import formatdate

import pytest

from ocistow.oci.errors import RegistryError, RegistryUnavailable
from ocistow.publish.access import Access
from ocistow.publish.distribution.answer import Answer
from ocistow.publish.distribution.endpoint import Endpoint
from ocistow.publish.distribution.retries import (
    BACKOFF,
    MAX_RETRIES,
    MAX_WAIT,
    MAX_WAITING,
    TRIES,
    Retries,
)
from ocistow.publish.distribution.transport import Transport
from ocistow.testing.faults import Fault, Status
from ocistow.testing.registry import Registry

DOWN = RegistryUnavailable("GET http://a.test/", 503, ("UNAVAILABLE",), "down")


def asking(seconds: float) -> RegistryUnavailable:
    return RegistryUnavailable("GET http://a.test/", 429, (), "slowly", seconds)


def waits_of(retries: Callable[[Callable[[float], None]], Retries], *tries: int) -> list[float]:
    waits: list[float] = []
    found = retries(waits.append)
    for number in tries:
        found.wait(DOWN, number)
    return waits


def test_waits_double_and_are_random_from_nothing_on() -> None:
    most = waits_of(lambda sleep: Retries(sleep, lambda: 1.0), 1, 2, 3)
    assert most == [BACKOFF, 2 * BACKOFF, 4 * BACKOFF]
    assert waits_of(lambda sleep: Retries(sleep, lambda: 0.0), 1, 2, 3) == [0.0, 0.0, 0.0]
    drawn = waits_of(Retries, *[1] * MAX_RETRIES)
    assert len(set(drawn)) > MAX_RETRIES / 2
    assert max(drawn) <= BACKOFF


def test_the_last_try_is_the_end() -> None:
    with pytest.raises(RegistryUnavailable) as raised:
        Retries(lambda _: pytest.fail("waited")).wait(DOWN, TRIES)
    assert raised.value is DOWN


def test_a_wait_that_was_asked_for_is_kept() -> None:
    waits: list[float] = []
    retries = Retries(waits.append, lambda: 1.0)
    retries.wait(asking(MAX_WAIT), 1)
    retries.wait(asking(BACKOFF / 2), 1)
    assert waits == [MAX_WAIT, BACKOFF]


def test_a_wait_that_is_too_long_is_named() -> None:
    with pytest.raises(RegistryUnavailable) as raised:
        Retries(lambda _: pytest.fail("waited")).wait(asking(MAX_WAIT + 1), 1)
    assert str(raised.value) == (
        "GET http://a.test/: slowly; it asks to wait 31 seconds, over 30 (HTTP 429)"
    )


def test_all_requests_share_one_number_of_tries() -> None:
    waits: list[float] = []
    retries = Retries(waits.append)
    for _ in range(MAX_RETRIES):
        retries.wait(DOWN, 1)
    with pytest.raises(RegistryUnavailable):
        retries.wait(DOWN, 1)
    assert len(waits) == MAX_RETRIES


def test_all_requests_share_one_time_to_wait() -> None:
    waits: list[float] = []
    retries = Retries(waits.append)
    for _ in range(int(MAX_WAITING / MAX_WAIT)):
        retries.wait(asking(MAX_WAIT), 1)
    with pytest.raises(RegistryUnavailable):
        retries.wait(asking(MAX_WAIT), 1)
    assert sum(waits) == MAX_WAITING


def test_what_led_to_success_is_given_back() -> None:
    """A long upload over a bad line goes on for as long as it gets on."""
    with Registry() as registry:
        endpoint = Endpoint(registry.host, plain_http=True)

        def ask(transport: Transport) -> None:
            with transport.request("GET", "/v2/") as answer:
                answer.expect(200)

        with Transport(endpoint, Access(), lambda _: None) as transport:
            for _ in range(MAX_RETRIES):
                registry.faults.append(Fault("GET", "/", Status(503), times=TRIES - 1))
                transport.retrying(lambda: ask(transport))
        assert len(registry.requests) == MAX_RETRIES * TRIES


@pytest.mark.parametrize(
    ("status", "field", "least", "most"),
    [
        (429, "7", 7.0, 7.0),
        (503, "7", 7.0, 7.0),
        (429, 1000, 900.0, 1000.0),
        (429, -1000, 0.0, 0.0),
        (500, "7", 0.0, 0.0),
        (429, "-7", 0.0, 0.0),
        (429, "soon", 0.0, 0.0),
        (429, "Fri, 99 Nov 2026 25:61:61 GMT", 0.0, 0.0),
        (429, "9" * 400, 999999999.0, 999999999.0),
        (429, "", 0.0, 0.0),
    ],
)
def test_a_wait_is_seconds_or_a_date(
    status: int, field: str | int, least: float, most: float
) -> None:
    if isinstance(field, int):
        field = formatdate(time.time() + field, usegmt=True)
    with Registry() as registry:
        registry.faults.append(Fault("GET", "/", Status(status, {"Retry-After": field})))
        endpoint = Endpoint(registry.host, plain_http=True)
        with (
            Transport(endpoint, Access()) as transport,
            transport.request("GET", "/") as answer,
            pytest.raises(RegistryUnavailable) as raised,
        ):
            answer.expect(200)
    assert least <= raised.value.retry_after <= most


def test_a_registry_that_is_down_gets_no_storm() -> None:
    """Eight requests, each of which would be tried again: all share one budget."""
    with Registry() as registry:
        registry.faults.append(Fault("GET", "/", Status(503), times=None))

        def ask(transport: Transport) -> Answer:
            with transport.request("GET", "/") as answer:
                answer.expect(200)
            return answer

        endpoint = Endpoint(registry.host, plain_http=True)
        with Transport(endpoint, Access(), lambda _: None) as transport:
            for _ in range(8):
                with pytest.raises(RegistryError):
                    transport.retrying(lambda: ask(transport))
        assert len(registry.requests) == 8 + MAX_RETRIES
