"""When a client comes back."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.client.reconnect import NEVER, Backoff, Reconnect, retry_after

seconds = st.floats(1e-3, 1e6)
policies = st.tuples(seconds, st.floats(1, 1e12), seconds).map(
    lambda given: Reconnect(given[0], given[1], max(given[0], given[2]))
)


@given(policies, st.integers(0, 100_000), st.none() | st.floats(-10, 1e5))
def test_waits_are_within_the_bounds(policy: Reconnect, failures: int, asked: float | None) -> None:
    backoff = Backoff(policy)
    backoff.failures = failures
    first = max(asked or 0.0, 0.0)
    assert first <= backoff.delay(asked) <= first + policy.maximum
    if failures == 0:
        assert backoff.delay() <= policy.initial


@given(policies, st.integers(0, 40))
def test_the_bound_grows_with_the_failures(policy: Reconnect, failures: int) -> None:
    backoff = Backoff(policy)
    for _ in range(failures):
        backoff.failed()
    bound = policy.maximum
    if failures * math.log(policy.factor) + math.log(policy.initial) < math.log(policy.maximum):
        bound = policy.initial * policy.factor**failures
    assert backoff.delay() <= bound * (1 + 1e-9)


def test_a_slow_growth_reaches_the_maximum_too() -> None:
    backoff = Backoff(Reconnect(initial=1, factor=1.01, maximum=30))
    backoff.failures = 1000
    assert max(backoff.delay() for _ in range(200)) > 20


def test_jitter_is_full() -> None:
    backoff = Backoff(Reconnect(initial=8, maximum=8))
    waits = [backoff.delay() for _ in range(2000)]
    assert min(waits) < 0.5
    assert max(waits) > 7.5
    assert 3.5 < sum(waits) / len(waits) < 4.5
    waits = [backoff.delay(10) for _ in range(2000)]
    assert min(waits) >= 10
    assert max(waits) > 17.5


def test_attempts() -> None:
    backoff = Backoff(Reconnect(attempts=2))
    seen = []
    for step in (backoff.failed, backoff.failed, backoff.succeeded, backoff.failed):
        seen.append((backoff.failures, backoff.exhausted))
        step()
    assert seen == [(0, False), (1, False), (2, True), (0, False)]


def test_never_tries_once() -> None:
    backoff = Backoff(NEVER)
    backoff.failed()
    assert backoff.exhausted


def test_without_a_limit_it_never_gives_up() -> None:
    backoff = Backoff(Reconnect())
    backoff.failures = 10**9
    assert not backoff.exhausted
    assert backoff.delay() <= 30


@pytest.mark.parametrize(
    "fields",
    [
        {"initial": 0.0},
        {"initial": -1.0},
        {"initial": math.nan},
        {"factor": 0.5},
        {"factor": math.nan},
        {"initial": 10.0, "maximum": 5.0},
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="initial must be"):
        Reconnect(**fields)  # type: ignore[arg-type]


def test_attempts_must_be_positive() -> None:
    with pytest.raises(ValueError, match="attempts must be"):
        Reconnect(attempts=0)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 2015 07:28:00", 0.0),
        ("Wed, 21 Oct 99999 07:28:00 GMT", None),
        ("Wed, 21 Oct 2015 07:28:00 +" + "9" * 30, None),
    ],
)
def test_retry_after(value: str | None, found: float | None) -> None:
    assert retry_after(value) == found


@pytest.mark.parametrize("zone", [UTC, None])
def test_retry_after_a_date_to_come(zone: object) -> None:
    moment = datetime.now(UTC) + timedelta(seconds=90)
    text = format_datetime(moment, usegmt=True) if zone else format_datetime(moment.replace(tzinfo=None))
    found = retry_after(text)
    assert found is not None
    assert 80 < found <= 90


@given(st.text(max_size=40) | st.from_regex(r"\A[A-Z][a-z]{2}, \d+ Oct \d+ \d+:\d+:\d+ [+-]?\w+\Z"))
def test_whatever_a_server_says_does_no_harm(text: str) -> None:
    found = retry_after(text)
    assert found is None or found >= 0
