"""What a client was sent and is not known to have got.

Kandy's clients acknowledge nothing. But a browser answers a WebSocket ping by itself, in order (RFC 6455, 5.5.2), so a
pong proves that all that was sent before its ping has arrived. Clients drop a notification whose event id is among the
last hundred (Kandy protocol notes, 4.2). So whatever was sent and not proved is sent again to the next socket, and
after a crash, whatever was proved but not stored yet; no more than a hundred notifications are ever in that state. Then
nothing is lost, nor seen twice.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from offhook.domain.events import Topic
from offhook.domain.subscriptions import Owed

LIMIT = 100
"""Notifications that may have to be sent again: as many ids as clients remember."""
PROBE_EVERY = 32
"""Notifications after which a proof is asked for at once, and not only after PROBE_AFTER or PROBE_LATER."""
PROBE_AFTER = 0.25
"""Seconds after which a proof is asked for of what must not be told again to another client of the same user ..."""
PROBE_LATER = 5.0
"""... and of what may be. A proof and its storing cost more than the notification."""


@dataclass(slots=True)
class Mark:
    """How far a client was told things.

    Attributes:
        number: of the probe that proves it.
        count: notifications since the mark before.
        sent: topic → offset of the last event.
        message: id of the last message to the user; 0 if there was none yet.
        owed: what of the presence that the client asked for is among them.
    """

    number: int
    count: int
    sent: dict[Topic, int]
    message: int
    owed: tuple[Owed, ...]


class Window:
    """Counts what is sent, and takes the proofs."""

    __slots__ = ("_number", "_owed", "_proved", "_since", "_waiting", "message", "open", "sent")

    def __init__(self) -> None:
        self.sent: dict[Topic, int] = {}
        """Topic → offset of the last event that was handed to the client, or left out since it is not for it."""
        self.message = 0
        """Id of the last message to the user that was sent."""
        self.open = 0
        """Notifications that might have to be sent again."""
        self._since = 0
        self._number = 0
        self._owed: list[Owed] | None = None
        self._waiting: deque[Mark] | None = None
        self._proved: deque[tuple[int, int]] | None = None

    def room(self, count: int) -> bool:
        """Whether so many more may be sent for now."""
        return self.open + count <= LIMIT

    @property
    def unproved(self) -> bool:
        """Whether something was sent of which nothing proves that it has arrived."""
        return self._since > 0 or bool(self._waiting)

    def add(self) -> bool:
        """A notification was sent. Returns whether a probe should follow at once."""
        self.open += 1
        self._since += 1
        return self._since >= PROBE_EVERY

    def add_owed(self, owed: Owed) -> None:
        """What the client was owed has been sent, or needs not be."""
        if self._owed is None:
            self._owed = []
        self._owed.append(owed)

    @property
    def owed_under_way(self) -> frozenset[Owed]:
        """What of the presence that the client asked for was sent and is not proved to have arrived."""
        marks = () if self._waiting is None else self._waiting
        return frozenset(owed for mark in marks for owed in mark.owed) | frozenset(self._owed or ())

    def probe(self) -> bytes | None:
        """The payload of a ping to send now, or None if there is nothing new to prove."""
        if not self._since and self._owed is None:
            return None
        self._number += 1
        mark = Mark(self._number, self._since, dict(self.sent), self.message, tuple(self._owed or ()))
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(mark)
        self._since, self._owed = 0, None
        return self._number.to_bytes(8)

    def proved(self, payload: bytes) -> Mark | None:
        """What a pong proves to have arrived: the latest mark, with what all up to it were owed; None if nothing."""
        waiting = self._waiting
        number = int.from_bytes(payload) if len(payload) == 8 else 0
        if not waiting or not waiting[0].number <= number <= waiting[-1].number:
            return None
        owed: list[Owed] = []
        mark = waiting[0]
        count = 0
        while waiting and waiting[0].number <= number:
            mark = waiting.popleft()
            count += mark.count
            owed += mark.owed
        if not waiting:
            self._waiting = None
        if self._proved is None:
            self._proved = deque()
        self._proved.append((number, count))
        mark.owed = tuple(owed)
        return mark

    def saved(self, number: int) -> None:
        """What was proved up to a mark's number is stored: it need not be sent again, whatever happens."""
        proved = self._proved
        while proved and proved[0][0] <= number:
            self.open -= proved.popleft()[1]
        if not proved:
            self._proved = None
