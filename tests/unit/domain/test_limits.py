"""Token buckets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.domain.limits import Bucket, Rate, RateLimiter

RATE = Rate(per_second=2.0, burst=4)


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = Bucket(RATE, 0.0)
    assert [bucket.take(RATE, 0.0) for _ in range(4)] == [0.0] * 4
    assert bucket.take(RATE, 0.0) == pytest.approx(0.5)
    assert bucket.take(RATE, 0.5) == 0.0
    assert bucket.wait(RATE, 0.5) == pytest.approx(0.5)
    assert bucket.wait(RATE, 100.0) == 0.0


@given(st.lists(st.floats(0, 10), max_size=200))
def test_no_more_is_given_than_burst_and_rate_allow(gaps: list[float]) -> None:
    bucket, now, given_ = Bucket(RATE, 0.0), 0.0, 0
    for gap in gaps:
        now += gap
        given_ += bucket.take(RATE, now) == 0.0
    assert given_ <= RATE.burst + RATE.per_second * now + 1e-6


@given(st.floats(0, 100), st.integers(0, 10))
def test_after_the_wait_a_token_is_there(start: float, taken: int) -> None:
    bucket = Bucket(RATE, start)
    for _ in range(taken):
        bucket.take(RATE, start)
    wait = bucket.wait(RATE, start)
    assert bucket.take(RATE, start + wait + 1e-6) == 0.0


def test_keys_have_their_own_buckets() -> None:
    limiter = RateLimiter(RATE)
    for _ in range(4):
        assert limiter.take("a", 0.0) == 0.0
    assert limiter.take("a", 0.0) > 0
    assert limiter.wait("a", 0.0) > 0
    assert limiter.take("b", 0.0) == 0.0
    assert limiter.wait("never seen", 0.0) == 0.0


def test_the_table_is_bounded() -> None:
    limiter = RateLimiter(RATE, capacity=10)
    for key in range(1000):
        limiter.take(key, 0.0)
    assert len(limiter) == 10
