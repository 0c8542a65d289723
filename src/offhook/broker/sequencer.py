"""Puts the events of a topic in order: those that come from other nodes, by any way and at any time, and one's own.

Pure: it is told of publications, of the topic's head and of pages of the journal, says what is to be handed out, and
whether something is missing that has to be looked up. Whatever is lost, doubled or overtaken on the way, each offset is
handed out once, in order; the journal, which has all of them, is asked for what does not come.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from offhook.broker.journal import Recorded
from offhook.broker.recent import NONE, RECENT, following
from offhook.domain.events import Position, Topic
from offhook.ports import Publication

MAX_ASIDE = 1_000
"""Events of a topic that are kept aside while one before them is missing; those beyond are read in the journal."""


@dataclass(frozen=True, slots=True)
class Told:
    """What came of a page of the journal.

    Attributes:
        out: to be handed out now, in this order.
        lost: whether events before these are gone from the journal, and were never handed out.
    """

    out: Sequence[Publication]
    lost: bool


class Line:
    """The events of one topic that this node hears.

    Attributes:
        topic: the topic.
        delivered: offset of the last event that was handed out or precedes what is to be; None until the topic's head
            was learnt for the first time.
        known: offset of the last event that is known to exist.
    """

    __slots__ = ("_aside", "_most", "_recent", "delivered", "known", "topic")

    def __init__(self, topic: Topic, most: int = RECENT) -> None:
        self.topic = topic
        self.delivered: int | None = None
        self.known = 0
        self._most = most
        self._aside: dict[int, Publication] | None = None
        self._recent: deque[Publication] | None = None

    @property
    def behind(self) -> bool:
        """Whether events are missing."""
        return self.delivered is not None and self.known > self.delivered

    def take(self, publication: Publication) -> Sequence[Publication]:
        """Takes an event that was published here or elsewhere. Returns what is to be handed out now."""
        offset, delivered = publication.position.offset, self.delivered
        if delivered is not None:
            if offset <= delivered:
                return NONE
            if offset == delivered + 1:
                self._handed(publication)
                return (publication,) if self._aside is None else [publication, *self._follow()]
        if self._aside is None:
            self._aside = {}
        # The one that knows its origin wins over the one that does not.
        if len(self._aside) < MAX_ASIDE and (publication.origin is not None or offset not in self._aside):
            self._aside[offset] = publication
        self.known = max(self.known, offset)
        return NONE

    def head(self, offset: int) -> Sequence[Publication]:
        """Learns the topic's head, as of some moment after it was first heard. Returns what is to be handed out now."""
        self.known = max(self.known, offset)
        if self.delivered is None:
            # What was kept aside was published after the topic was first heard, so it is to be handed out.
            self.delivered = min(offset, min(self._aside or (offset + 1,)) - 1)
        return self._follow()

    def page(self, recorded: Recorded, epoch: str, asked: int = 0) -> Told:
        """Learns a page of the journal that was asked for with ``after`` not beyond ``delivered``.

        Args:
            recorded: what the journal answered.
            epoch: names the journal's history.
            asked: ``known`` at the time of asking. If the journal does not reach as far, the topic has vanished.
        """
        if self.delivered is None:
            return Told(self.head(recorded.head), False)
        # The first there is, not the oldest that is kept: what is missing between the two is gone as well.
        first = recorded.events[0][0] if recorded.events else recorded.head + 1
        lost = first - 1 > self.delivered
        if lost:
            self.delivered = first - 1
            self._recent = None
        out: list[Publication] = []
        for offset, event in recorded.events:
            if offset != self.delivered + 1:
                continue
            publication = self._aside.pop(offset, None) if self._aside else None
            if publication is None:
                publication = Publication(self.topic, Position(epoch, offset), event)
            self._handed(publication)
            out.append(publication)
        out += self._follow()
        if recorded.head < asked and self.delivered < asked:
            lost = lost or self._aside is not None
            self._aside = None
            self.known = self.delivered
        self.known = max(self.known, recorded.head)
        return Told(out, lost)

    def skip(self, head: int) -> Sequence[Publication]:
        """Goes on behind an offset, since what precedes it cannot be had. Returns what is to be handed out now."""
        if self.delivered is None or head > self.delivered:
            self.delivered = head
            self._recent = None
        self.known = max(self.known, head)
        return self._follow()

    def _handed(self, publication: Publication) -> None:
        self.delivered = offset = publication.position.offset
        if offset > self.known:
            self.known = offset
        if self._recent is None:
            self._recent = deque(maxlen=self._most)
        self._recent.append(publication)

    def _follow(self) -> Sequence[Publication]:
        """What was kept aside and is next now."""
        aside = self._aside
        if not aside or self.delivered is None:
            self._aside = None
            return NONE
        out: list[Publication] = []
        while (publication := aside.pop(self.delivered + 1, None)) is not None:
            self._handed(publication)
            out.append(publication)
        if aside and min(aside) <= self.delivered:
            for offset in [offset for offset in aside if offset <= self.delivered]:
                del aside[offset]
        if not aside:
            self._aside = None
        return out

    def after(self, offset: int, limit: int) -> Sequence[Publication] | None:
        """The events after an offset that were handed out, or None if it takes the journal to tell."""
        return following(self._recent, self.delivered, offset, limit)
