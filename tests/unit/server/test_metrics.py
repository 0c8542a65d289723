"""Metrics: what is counted is shown, labels are bounded, counting is cheap."""

from __future__ import annotations

import timeit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from offhook.codes import CloseReason, EndReason
from offhook.server.metrics import MAX_LABELS, OTHER, Metrics


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """The exposition, read as Prometheus would."""
    text = metrics.render()[0].decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_plain_counters_are_shown() -> None:
    metrics = Metrics()
    metrics.frames_in += 3
    metrics.frames_out += 70
    metrics.deliveries += 5
    metrics.dropped += 1
    metrics.slow_consumers += 2
    metrics.sessions_active += 4
    metrics.sessions_waiting += 6
    metrics.password_queue += 7
    metrics.loop_lag = 0.25
    shown = samples(metrics)
    assert shown["offhook_frames_total", (("direction", "in"),)] == 3
    assert shown["offhook_frames_total", (("direction", "out"),)] == 70
    assert shown["offhook_deliveries_total", ()] == 5
    assert shown["offhook_dropped_total", ()] == 1
    assert shown["offhook_slow_consumers_total", ()] == 2
    assert shown["offhook_sessions", ()] == 4
    assert shown["offhook_sessions_waiting", ()] == 6
    assert shown["offhook_password_queue", ()] == 7
    assert shown["offhook_loop_lag_seconds", ()] == 0.25


def test_labelled_counters_are_shown() -> None:
    metrics = Metrics()
    metrics.connections["https"] += 1
    metrics.connections_total.add("http", count=2)
    metrics.closes.add(CloseReason.PING_TIMEOUT)
    metrics.session_starts.add("started", "guest")
    metrics.session_ends.add(EndReason.OPERATOR)
    metrics.function_calls.add("authenticate", "denied")
    shown = samples(metrics)
    assert shown["offhook_connections_open", (("listener", "https"),)] == 1
    assert shown["offhook_connections_total", (("listener", "http"),)] == 2
    assert shown["offhook_connection_closes_total", (("reason", "ping_timeout"),)] == 1
    assert shown["offhook_session_starts_total", (("authentication", "guest"), ("outcome", "started"))] == 1
    assert shown["offhook_session_ends_total", (("reason", "operator"),)] == 1
    assert shown["offhook_function_calls_total", (("function", "authenticate"), ("outcome", "denied"))] == 1


def test_every_reason_is_shown_from_the_start() -> None:
    shown = samples(Metrics())
    for close in CloseReason:
        assert shown["offhook_connection_closes_total", (("reason", close.value),)] == 0
    for end in EndReason:
        assert shown["offhook_session_ends_total", (("reason", end.value),)] == 0


def test_histograms_are_cumulative() -> None:
    metrics = Metrics()
    for seconds in (0.0001, 0.001, 0.002, 99.0):
        metrics.request_time.observe(seconds, "relay")
    shown = samples(metrics)

    def bucket(bound: str) -> float:
        return shown["offhook_request_seconds_bucket", (("kind", "relay"), ("le", bound))]

    assert [bucket(bound) for bound in ("0.0005", "0.001", "0.0025", "10.0", "+Inf")] == [1, 2, 3, 3, 4]
    assert shown["offhook_request_seconds_count", (("kind", "relay"),)] == 4
    assert shown["offhook_request_seconds_sum", (("kind", "relay"),)] == pytest.approx(99.0031)
    metrics.commit_size.observe(3)
    assert samples(metrics)["offhook_commit_size_bucket", (("le", "4.0"),)] == 1
    assert metrics.commit_size.count() == 1


def test_labels_are_bounded() -> None:
    metrics = Metrics()
    for number in range(MAX_LABELS + 50):
        metrics.protocol_errors.add(f"kind {number}")
        metrics.request_time.observe(0.1, f"kind {number}")
    assert metrics.protocol_errors.value(OTHER) == 50
    assert metrics.request_time.count(OTHER) == 50
    assert metrics.protocol_errors.value("kind 3") == 1


def test_a_wrong_number_of_labels_is_a_mistake() -> None:
    with pytest.raises(ValueError):
        Metrics().requests.add("one")


def test_the_process_is_shown() -> None:
    shown = samples(Metrics())
    assert shown["process_resident_memory_bytes", ()] > 1e6
    assert shown["process_open_fds", ()] > 0


def test_hot_counters_are_as_cheap_as_plain_attributes() -> None:
    class Plain:
        def __init__(self) -> None:
            self.frames_in = 0

    def cost(subject: Metrics | Plain) -> float:
        def count() -> None:
            for _ in range(1000):
                subject.frames_in += 1

        return min(timeit.repeat(count, number=20, repeat=5))

    assert cost(Metrics()) < 3 * cost(Plain())
