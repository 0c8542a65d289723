"""Where the stores' commits are measured."""

from __future__ import annotations

from typing import Protocol


class Measure(Protocol):
    """Takes observations of one quantity."""

    def observe(self, value: float) -> None: ...


class CommitMetrics(Protocol):
    """Where a store's commits are measured, on the event loop."""

    @property
    def commit_size(self) -> Measure:
        """Units of work that were committed together."""

    @property
    def commit_time(self) -> Measure:
        """Seconds that a commit took."""
