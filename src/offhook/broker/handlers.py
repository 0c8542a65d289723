"""Calls the handlers of a broker's node, so that what one of them does not bear keeps nothing from anyone."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec

import structlog

from offhook.domain.events import Topic

P = ParamSpec("P")

log = structlog.get_logger(__name__)


def call(failure: str, topic: Topic, handler: Callable[P, object], *values: P.args, **named: P.kwargs) -> None:
    """Calls a handler; an exception of its is logged.

    Args:
        failure: what the log calls it.
        topic: what it is about.
        handler: is given the rest.
    """
    try:
        handler(*values, **named)
    except Exception:
        log.exception(failure, topic=topic)
