"""The latest events of a topic, as brokers keep them in memory: what a client that was away for a moment asks for."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice

from offhook.ports import Publication

RECENT = 128
"""Events of a topic that are kept in memory."""

NONE: Sequence[Publication] = ()


def following(
    recent: deque[Publication] | None, head: int | None, offset: int, limit: int
) -> Sequence[Publication] | None:
    """The events after an offset, or None if it takes the journal to tell.

    Args:
        recent: the last events, without gaps.
        head: offset of the topic's last event, as far as that is known.
        offset: after it.
        limit: events at most.
    """
    if head is None or offset > head:
        return None
    if offset == head:
        return NONE
    if not recent or recent[-1].position.offset != head:
        return None
    skip = offset + 1 - recent[0].position.offset
    return None if skip < 0 else list(islice(recent, skip, skip + limit))
