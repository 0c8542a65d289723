"""Metrics for Prometheus.

What is counted on hot paths are plain integers on one object, read by a collector when somebody asks for
them. Labels come from closed sets of ours, never from clients; where a set is open-ended it is cut off.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from offhook.codes import CloseReason, EndReason

MAX_LABELS = 200
"""Values of one label beyond which all further ones count as OTHER."""
OTHER = "other"

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)


class Counts:
    """A counter by labels.

    Args:
        name: the metric's name, without ``offhook_`` and ``_total``.
        text: what it counts.
        labels: the labels' names.
        known: label values shown from the start, with zero.
    """

    __slots__ = ("_labels", "_name", "_text", "_values")

    def __init__(self, name: str, text: str, labels: Sequence[str], known: Iterable[tuple[str, ...]] = ()) -> None:
        self._name = name
        self._text = text
        self._labels = tuple(labels)
        self._values: dict[tuple[str, ...], int] = dict.fromkeys(known, 0)

    def add(self, *labels: str, count: int = 1) -> None:
        """Counts. The labels' values come in the order of their names."""
        values = self._values
        if labels in values:
            values[labels] += count
        elif len(labels) != len(self._labels):
            raise ValueError(f"{self._name} has the labels {self._labels}")
        else:
            key = labels if len(values) < MAX_LABELS else (OTHER,) * len(labels)
            values[key] = values.get(key, 0) + count

    def value(self, *labels: str) -> int:
        """The count so far."""
        return self._values.get(labels, 0)

    def collect(self) -> Metric:
        """The metric as it is now."""
        family = CounterMetricFamily(f"offhook_{self._name}", self._text, labels=self._labels)
        for labels, value in self._values.items():
            family.add_metric(labels, value)
        return family


class Histogram:
    """How observations are spread, by one label at most.

    Args:
        name: the metric's name, without ``offhook_``.
        text: what is observed, and its unit.
        bounds: upper bounds of the buckets, ascending.
        label: the label's name, or None for a histogram without one.
    """

    __slots__ = ("_bounds", "_label", "_name", "_series", "_text")

    def __init__(self, name: str, text: str, bounds: Sequence[float], label: str | None = None) -> None:
        self._name = name
        self._text = text
        self._bounds = tuple(bounds)
        self._label = label
        self._series: dict[str, tuple[list[int], list[float]]] = {}

    def observe(self, value: float, label: str = "") -> None:
        """Takes one observation in."""
        series = self._series.get(label)
        if series is None:
            if len(self._series) >= MAX_LABELS:
                label = OTHER
            series = self._series.setdefault(label, ([0] * (len(self._bounds) + 1), [0.0]))
        series[0][bisect_left(self._bounds, value)] += 1
        series[1][0] += value

    def count(self, label: str = "") -> int:
        """How many observations there were."""
        series = self._series.get(label)
        return sum(series[0]) if series else 0

    def collect(self) -> Metric:
        """The metric as it is now."""
        labels = [self._label] if self._label else []
        family = HistogramMetricFamily(f"offhook_{self._name}", self._text, labels=labels)
        for label, (counts, total) in self._series.items():
            buckets: list[tuple[str, float]] = []
            seen = 0
            for bound, count in zip((*self._bounds, float("inf")), counts, strict=True):
                seen += count
                buckets.append(("+Inf" if bound == float("inf") else str(bound), float(seen)))
            family.add_metric([label] if self._label else [], buckets=buckets, sum_value=total[0])
        return family


class Direction(StrEnum):
    """Which way data went, seen from the server."""

    IN = "in"
    OUT = "out"


class Metrics(Collector):
    """All that Offhook counts. One object per process; plain attributes are there to be changed by ``+=``.

    Attributes:
        frames_in: protocol frames received.
        frames_out: protocol frames sent, without those that carry events.
        deliveries: events put before one client each.
        dropped: events not put before a client, which is told to start over.
        slow_consumers: connections cut because their client did not read.
        sessions_active: sessions with a connection here.
        sessions_waiting: sessions of the whole system that wait for one. Every process says the same of it.
        password_queue: passwords that wait to be checked.
        broker_connected: whether events and commands of other nodes come without delay.
        broker_events: what the broker has counted, by name.
        loop_lag: seconds by which the event loop was late of late.
        loop_lag_max: the worst since the start.
        worker: this process's place among the workers of a supervisor, which becomes a label of everything; else None.
    """

    __slots__ = (
        "_registry",
        "broker_connected",
        "broker_events",
        "closes",
        "commit_size",
        "commit_time",
        "connections",
        "connections_total",
        "deliveries",
        "dropped",
        "errors",
        "frames_in",
        "frames_out",
        "function_calls",
        "function_time",
        "http_requests",
        "http_time",
        "loop_lag",
        "loop_lag_max",
        "password_queue",
        "protocol_errors",
        "refused",
        "request_time",
        "requests",
        "session_ends",
        "session_starts",
        "sessions_active",
        "sessions_waiting",
        "slow_consumers",
        "worker",
    )

    def __init__(self) -> None:
        self.frames_in = 0
        self.frames_out = 0
        self.deliveries = 0
        self.dropped = 0
        self.slow_consumers = 0
        self.sessions_active = 0
        self.sessions_waiting = 0
        self.password_queue = 0
        self.broker_connected = True
        self.broker_events: Mapping[str, int] = {}
        self.loop_lag = 0.0
        self.loop_lag_max = 0.0
        self.worker: int | None = None
        self.connections = {"http": 0, "https": 0}
        """Open sockets by listener."""
        self.connections_total = Counts("connections", "Sockets accepted.", ["listener"], [("http",), ("https",)])
        self.refused = Counts("connections_refused", "Sockets turned away by a limit.", ["limit"])
        self.closes = Counts(
            "connection_closes",
            "Connections of clients that ended.",
            ["reason"],
            [(reason.value,) for reason in CloseReason],
        )
        self.session_starts = Counts("session_starts", "Attempts to start a session.", ["outcome", "authentication"])
        self.session_ends = Counts(
            "session_ends", "Sessions that ended.", ["reason"], [(reason.value,) for reason in EndReason]
        )
        self.protocol_errors = Counts("protocol_errors", "Breaches of a protocol by clients.", ["kind"])
        self.errors = Counts("errors", "Errors told to clients.", ["code"])
        self.requests = Counts("requests", "Requests of sessions.", ["kind", "outcome"])
        self.request_time = Histogram("request_seconds", "Seconds a request of a session took.", SECONDS, "kind")
        self.http_requests = Counts("http_requests", "HTTP requests.", ["method", "status"])
        self.http_time = Histogram("http_request_seconds", "Seconds until an HTTP response was out.", SECONDS)
        self.commit_size = Histogram("commit_size", "Transactions committed together.", SIZES)
        self.commit_time = Histogram("commit_seconds", "Seconds a commit took.", SECONDS)
        self.function_calls = Counts("function_calls", "Calls of applications' functions.", ["function", "outcome"])
        self.function_time = Histogram("function_seconds", "Seconds a function took.", SECONDS, "function")
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def request(self, kind: str, outcome: str, seconds: float) -> None:
        """A request of a session was answered; ``outcome`` is ``ok`` or an error's code."""
        self.requests.add(kind, outcome)
        self.request_time.observe(seconds, kind)

    def closed(self, reason: CloseReason) -> None:
        """A client's connection has ended."""
        self.closes.add(reason.value)
        if reason is CloseReason.SLOW_CONSUMER:
            self.slow_consumers += 1

    def delivered(self, count: int) -> None:
        """An event was put before so many clients."""
        self.deliveries += count

    def collect(self) -> Iterator[Metric]:
        """Everything as it is now; called by the registry."""
        frames = CounterMetricFamily("offhook_frames", "Protocol frames, events apart.", labels=["direction"])
        frames.add_metric([Direction.IN.value], self.frames_in)
        frames.add_metric([Direction.OUT.value], self.frames_out)
        yield frames
        yield CounterMetricFamily("offhook_deliveries", "Events, by the sessions they went to.", value=self.deliveries)
        yield CounterMetricFamily("offhook_dropped", "Events that a client has to fetch anew.", value=self.dropped)
        yield CounterMetricFamily(
            "offhook_slow_consumers",
            "Connections cut as their client did not read.",
            value=self.slow_consumers,
        )
        yield GaugeMetricFamily("offhook_sessions", "Sessions with a connection here.", value=self.sessions_active)
        # By itself, as nobody should add it up over processes.
        yield GaugeMetricFamily(
            "offhook_sessions_waiting",
            "Sessions of the whole system that wait for a connection, the same in every process.",
            value=self.sessions_waiting,
        )
        open_now = GaugeMetricFamily("offhook_connections_open", "Open sockets.", labels=["listener"])
        for listener, count in self.connections.items():
            open_now.add_metric([listener], count)
        yield open_now
        yield GaugeMetricFamily("offhook_password_queue", "Passwords that wait.", value=self.password_queue)
        yield GaugeMetricFamily(
            "offhook_broker_connected", "Whether other nodes' events come without delay.", value=self.broker_connected
        )
        broker = CounterMetricFamily("offhook_broker_events", "What befell the broker.", labels=["kind"])
        for kind, number in self.broker_events.items():
            broker.add_metric([kind], number)
        yield broker
        yield GaugeMetricFamily("offhook_loop_lag_seconds", "Lateness of the event loop.", value=self.loop_lag)
        yield GaugeMetricFamily(
            "offhook_loop_lag_max_seconds", "The worst lateness since the start.", value=self.loop_lag_max
        )
        for metric in (
            self.connections_total,
            self.refused,
            self.closes,
            self.session_starts,
            self.session_ends,
            self.protocol_errors,
            self.errors,
            self.requests,
            self.request_time,
            self.http_requests,
            self.http_time,
            self.commit_size,
            self.commit_time,
            self.function_calls,
            self.function_time,
        ):
            yield metric.collect()

    def render(self) -> tuple[bytes, str]:
        """The metrics in Prometheus' text format, and its content type."""
        registry = self._registry if self.worker is None else _Labelled(self._registry, {"worker": str(self.worker)})
        return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


class _Labelled(Collector):
    """Everything that a registry has, with further labels.

    Whoever asks several workers by the port that they share gets the one's numbers now and the other's then: without
    a label they would look like one counter that jumps.
    """

    def __init__(self, registry: CollectorRegistry, labels: dict[str, str]) -> None:
        self._registry = registry
        self._labels = labels

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample._replace(labels={**self._labels, **sample.labels}) for sample in metric.samples]
            yield metric
