"""The sessions whose connections this node holds, and the way of events to them.

A live session hears two topics: its user's own, and its application's; of the latter, one that watches certain users
hears only what is about them. The hub keeps one subscription at the broker for each topic, whatever the number of
sessions, and hands each publication to every session that hears it in turn.

A session that was resumed is *held* first: what is published meanwhile is kept aside. When its client is ready, the
events it missed are taken from the topic's history, then those set aside, then it is live: in order, each once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import structlog

from offhook.codes import CloseReason, EndReason
from offhook.domain.accounts import Application, User
from offhook.domain.events import (
    Position,
    Topic,
    UserUpdated,
    application_topic,
    name_in,
    user_topic,
)
from offhook.domain.sessions import Session
from offhook.domain.subscriptions import Subscription
from offhook.ports import (
    BlocksChanged,
    Broker,
    EndSession,
    FenceSession,
    HistoryLost,
    Publication,
    SubscriptionChanged,
)

HISTORY_PAGE = 50
"""Missed events that are delivered before a look at whether the client keeps up."""
MAX_REPLAY = 2_000
"""Events of everybody that are looked through for those that a session watches; who missed more starts over there."""
MAX_HELD = 10_000
"""Publications set aside for one held session; what comes after them is taken from the topics' histories."""

MAX_EARLY = 1_000
"""Words about sessions that are not here which are remembered, in case such a session is on its way here."""

Word = EndSession | FenceSession | SubscriptionChanged
"""What other nodes say about one session."""

NOBODY: frozenset[int] = frozenset()
NO_ONE: frozenset[str] = frozenset()

log = structlog.get_logger(__name__)


class Outlet(Protocol):
    """A session's connection, as the hub sees it."""

    def deliver(self, publication: Publication) -> None:
        """Sends an event to the client if it has asked for such events. Must not raise, must not wait."""

    async def ready(self) -> None:
        """Waits until the client has taken most of what was sent, or is gone."""

    def ended(self, reason: EndReason, text: str) -> None:
        """The session is over: tells the client, then closes."""

    def drop(self, reason: CloseReason) -> None:
        """Closes the connection; the session lives on elsewhere or later."""

    def changed(self) -> None:
        """The session's subscription has changed."""

    def gap(self) -> None:
        """Some of what the session was to hear is gone (see ``LiveSession.lost``): sees to it that it starts over."""

    def saved(self, proof: int) -> None:
        """What the session's client had seen is stored: up to what ``LiveSession.proof`` was then."""


class LiveSession:
    """A session with a connection on this node.

    Attributes:
        record: the session as stored when the connection was accepted.
        application: its application at that time.
        user: its user, kept up to date by the user's own events.
        user_as_of: offset in the user's topic of the latest event that ``user`` reflects.
        acked: topic → offset of the last event that the client is known to have seen.
        proof: counts what the outlet learnt of what its client has seen, for ``Outlet.saved``; 0 if it does not care.
        taken: id of the last message to its user that the client is known to have got; 0 if none.
        subscription: what it has subscribed to, if it is a subscription.
        watched: names of the users about whom it hears; None for everybody.
        blocked: ids of the users of whom this one is to hear nothing, nor they of this one.
        release: the delivery of what it missed, while that goes on.
        places: up to where what it missed has been delivered; None once nothing up to there can come again.
        recovered: False if the session was resumed but some of what it missed is gone.
        lost: the topics of which that is so.
        share: into how many notifications its connection may make one event.
        gone: whether it has left the hub.
    """

    __slots__ = (
        "_held",
        "acked",
        "application",
        "blocked",
        "gone",
        "lost",
        "outlet",
        "places",
        "proof",
        "record",
        "recovered",
        "release",
        "share",
        "subscription",
        "taken",
        "user",
        "user_as_of",
        "user_id",
        "watched",
    )

    def __init__(
        self,
        record: Session,
        application: Application,
        user: User,
        user_as_of: int,
        outlet: Outlet,
        subscription: Subscription | None = None,
    ) -> None:
        self.record = record
        self.application = application
        self.user = user
        self.user_id = user.id
        self.user_as_of = user_as_of
        self.outlet = outlet
        self.acked: dict[Topic, int] = dict(record.positions)
        self.proof = 0
        self.taken = 0
        self.subscription = subscription
        self.watched: frozenset[str] | None = None if subscription is None else NO_ONE
        self.recovered = True
        self.lost: frozenset[Topic] = frozenset()
        self.share = 1
        self.release: asyncio.Future[None] | None = None
        self.places: dict[Topic, Position] | None = None
        self.blocked: frozenset[int] = NOBODY
        self.gone = False
        self._held: list[Publication] | None = None

    @property
    def id(self) -> int:
        return self.record.id

    @property
    def topics(self) -> tuple[Topic, ...]:
        """What the session hears."""
        own = user_topic(self.user_id)
        return (own,) if self.watched == NO_ONE else (own, application_topic(self.record.application_id))

    @property
    def held(self) -> bool:
        """Whether events are being kept back until the client is ready for what it missed."""
        return self._held is not None

    def hold(self) -> None:
        """Keeps events back until ``Hub.release``."""
        self._held = []

    def deliver(self, publication: Publication) -> None:
        """Takes one event, in the topic's order."""
        if self._held is not None:
            if len(self._held) <= MAX_HELD:
                self._held.append(publication)
            return
        place = None if self.places is None else self.places.get(publication.topic)
        if place is None or publication.position.offset > place.offset:
            self.emit(publication)

    def fall_behind(self, sent: Mapping[Topic, int]) -> None:
        """Keeps events back from now on, until ``Hub.release``, since the client is to take others first.

        Args:
            sent: topic → offset of the last event that the client was sent.
        """
        self.places = {topic: Position(self.record.epoch, sent[topic]) for topic in self.topics}
        self.hold()

    def emit(self, publication: Publication) -> None:
        """Gives one event to the client."""
        if publication.subject == self.user_id:
            if self.watched is None and publication.topic != user_topic(self.user_id):
                # What everybody may know of a user, the user's own topic tells them.
                return
            # What is replayed to a client that was away may be older than what the session knows already.
            offset = publication.position.offset
            own = publication.topic == user_topic(self.user_id)
            if own and isinstance(publication.event, UserUpdated) and offset > self.user_as_of:
                self.user, self.user_as_of = publication.event.user, offset
        # What is on the user's own topic is meant for the user, whoever it is about.
        if publication.subject not in self.blocked or publication.topic == user_topic(self.user_id):
            self.outlet.deliver(publication)

    def take_held(self) -> list[Publication]:
        """What was kept back since the last call, still holding."""
        held, self._held = self._held or [], []
        return held

    def go_live(self) -> None:
        """Stops holding."""
        self._held = None


class _Members:
    """Who hears a topic.

    Attributes:
        whole: those who hear all of it.
        watching: by username, those who hear what is about that user.
        handed: offset of the last publication that was handed out; 0 if none was.
    """

    __slots__ = ("handed", "watching", "whole")

    def __init__(self) -> None:
        self.handed = 0
        self.whole: dict[LiveSession, None] = {}
        self.watching: dict[str, dict[LiveSession, None]] = {}

    def watch(self, live: LiveSession, names: Iterable[str]) -> None:
        for name in names:
            self.watching.setdefault(name, {})[live] = None

    def unwatch(self, live: LiveSession, names: Iterable[str]) -> None:
        for name in names:
            sessions = self.watching.get(name)
            if sessions is not None:
                sessions.pop(live, None)
                if not sessions:
                    del self.watching[name]

    @property
    def empty(self) -> bool:
        return not self.whole and not self.watching


class Hub:
    """The live sessions of this node, by id and by topic.

    Args:
        broker: carries the publications here.
        count: is told to how many sessions each publication was handed.
    """

    def __init__(self, broker: Broker, count: Callable[[int], None]) -> None:
        self._broker = broker
        self._count = count
        self._sessions: dict[int, LiveSession] = {}
        self._topics: dict[Topic, _Members] = {}
        self._blocks: dict[int, frozenset[int]] = {}
        self._early: dict[tuple[int, type[Word]], Word] = {}
        self._newer: set[int] | None = None
        """Users whose blocks became known while all blocks were being read; None if they are not."""

    def expect_blocks(self) -> None:
        """All blocks are being read for ``load_blocks``: what is heard meanwhile is newer."""
        self._newer = set()

    def load_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Learns all blocks there are, as (blocker id, blocked id)."""
        blocks: dict[int, set[int]] = {}
        for one, other in pairs:
            blocks.setdefault(one, set()).add(other)
            blocks.setdefault(other, set()).add(one)
        before, newer = self._blocks, self._newer or ()
        self._newer = None
        self._blocks = {user_id: frozenset(others) for user_id, others in blocks.items()}
        for user_id in newer:
            self._know_blocks(user_id, before.get(user_id, NOBODY))
        for live in self._sessions.values():
            live.blocked = self._blocks.get(live.user_id, NOBODY)

    def blocks_changed(self, command: BlocksChanged) -> None:
        """Learns the blocks of some users anew."""
        for user_id, others in command.blocks:
            self._know_blocks(user_id, others)
            if self._newer is not None:
                self._newer.add(user_id)
            members = self._topics.get(user_topic(user_id))
            for live in () if members is None else members.whole:
                live.blocked = others

    def _know_blocks(self, user_id: int, others: frozenset[int]) -> None:
        if others:
            self._blocks[user_id] = others
        else:
            self._blocks.pop(user_id, None)

    def subscription_changed(self, command: SubscriptionChanged) -> None:
        """Learns a subscription anew, unless what is known of it is newer."""
        live = self.addressee(command)
        if live is None or live.subscription is None or live.subscription.version >= command.subscription.version:
            return
        live.subscription = command.subscription
        live.outlet.changed()

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[LiveSession]:
        return iter(list(self._sessions.values()))

    def get(self, session_id: int) -> LiveSession | None:
        """The session with this id, if its connection is here."""
        return self._sessions.get(session_id)

    def addressee(self, word: Word) -> LiveSession | None:
        """The session about which another node says something.

        If it is not here, it may be on its way: it is stored as being here a moment before it joins. So what is said
        until then is remembered.
        """
        session_id = word.subscription.session_id if isinstance(word, SubscriptionChanged) else word.session_id
        live = self._sessions.get(session_id)
        if live is None:
            self._early[session_id, type(word)] = word
            if len(self._early) > MAX_EARLY:
                del self._early[next(iter(self._early))]
        return live

    def early(self, session_id: int) -> Sequence[Word]:
        """What was said about a session that has joined now, before it had; each is told once."""
        found = (self._early.pop((session_id, kind), None) for kind in (SubscriptionChanged, FenceSession, EndSession))
        return [word for word in found if word is not None]

    async def join(self, live: LiveSession) -> None:
        """Adds a session, held: from now on nothing of its topics passes it by."""
        live.hold()
        live.blocked = self._blocks.get(live.user_id, NOBODY)
        self._sessions[live.id] = live
        own, everybody = user_topic(live.user_id), application_topic(live.record.application_id)
        await self._hear(own, lambda members: members.whole.__setitem__(live, None))
        if live.watched is None:
            await self._hear(everybody, lambda members: members.whole.__setitem__(live, None))

    async def watch(self, live: LiveSession, names: frozenset[str], since: int | None = None) -> None:
        """Makes these the users about whom a session hears: from ``since`` on, or from where it has heard of some.

        If that lies too far back, the topic is added to what the session has ``lost``, and it hears from now on. What
        it has acknowledged stays as it is then, until its client was told all anew.

        Args:
            live: the session.
            names: all of whom it is to hear.
            since: offset in the application's topic; None is now.
        """
        before = live.watched or NO_ONE
        topic = application_topic(live.record.application_id)
        # What failed half-way is done again.
        if live.gone or (names == before and (not names or topic in live.acked)):
            return
        live.watched = names
        if names - before:
            await self._hear(topic, lambda members: members.watch(live, names - before))
        if before - names:
            await self._mute(topic, lambda members: members.unwatch(live, before - names))
        if not names:
            live.acked.pop(topic, None)
            if live.places is not None:
                live.places.pop(topic, None)
            return
        head = await self._broker.position(topic)
        live.acked[topic] = max(live.acked.get(topic, head.offset if since is None else since), since or 0)
        if live.places is None:
            live.places = {heard: await self._seen(live, heard) for heard in live.topics}
        place = live.places.setdefault(topic, await self._seen(live, topic))
        if head.offset - place.offset > MAX_REPLAY:
            live.lost |= {topic}
            live.places[topic] = head

    def handed(self, topic: Topic) -> int:
        """Offset of the last publication of a topic that was handed to those on this node who hear of it; 0 if none."""
        members = self._topics.get(topic)
        return 0 if members is None else members.handed

    async def _hear(self, topic: Topic, enter: Callable[[_Members], None]) -> None:
        members = self._topics.get(topic)
        if members is None:
            members = self._topics[topic] = _Members()
            enter(members)
            await self._broker.subscribe(topic)
        else:
            enter(members)

    async def _mute(self, topic: Topic, quit_: Callable[[_Members], None]) -> None:
        members = self._topics.get(topic)
        if members is not None:
            quit_(members)
            if members.empty:
                del self._topics[topic]
                await self._broker.unsubscribe(topic)

    async def leave(self, live: LiveSession) -> None:
        """Removes a session, if it is still the one that is here under its id. Idempotent."""
        live.gone = True
        if self._sessions.get(live.id) is live:
            del self._sessions[live.id]
        watched = live.watched
        await self._mute(user_topic(live.user_id), lambda members: members.whole.pop(live, None))
        everybody = application_topic(live.record.application_id)
        if watched is None:
            await self._mute(everybody, lambda members: members.whole.pop(live, None))
        elif watched:
            await self._mute(everybody, lambda members: members.unwatch(live, watched))

    async def recoverable(self, live: LiveSession) -> bool:
        """Whether the history since what the session has seen is all there."""
        try:
            for topic in live.topics:
                await self._broker.history(topic, await self._seen(live, topic), 1)
        except HistoryLost:
            return False
        return True

    async def release(self, live: LiveSession) -> None:
        """Delivers what a held session missed, in order and once, and makes it live; or waits for who does so."""
        if live.release is not None:
            await asyncio.shield(live.release)
            return
        if not live.held:
            return
        live.release = asyncio.get_running_loop().create_future()
        try:
            await self._catch_up(live)
        finally:
            live.release.set_result(None)
            live.release = None

    async def _catch_up(self, live: LiveSession) -> None:
        # Kept with the session, so that a release that failed half-way is gone on with and not begun again.
        if live.places is None:
            live.places = {topic: await self._seen(live, topic) for topic in live.topics}
        places = live.places
        behind, missed = True, False
        while behind and not live.gone:
            # What is kept back by now is in the histories as well; what comes during the round below may not be.
            live.take_held()
            behind = False
            for topic, place in places.items():
                try:
                    page = await self._broker.history(topic, place, max(1, HISTORY_PAGE // live.share))
                except HistoryLost:
                    log.warning("history_lost", session=live.id, topic=topic)
                    live.lost |= {topic}
                    if live.recovered:
                        # The client was told that it would get all of it.
                        live.recovered = False
                        live.outlet.gap()
                    places[topic] = await self._broker.position(topic)
                    behind = True
                    continue
                for publication in page:
                    live.emit(publication)
                if page:
                    behind = missed = True
                    places[topic] = page[-1].position
                    await live.outlet.ready()
            held = live.take_held()
            behind = behind or len(held) > MAX_HELD
        if live.gone:
            return
        # No await since the last round: whatever is published from here on comes after what was kept back.
        live.go_live()
        for publication in held:
            live.deliver(publication)
        if not missed and not live.held:
            # What was read in a history may have been stored a moment before its delivery, which is still to come;
            # where nothing was read, there is nothing to look out for.
            live.places = None

    def publish(self, publication: Publication) -> None:
        """Hands a publication to every session of its topic."""
        members = self._topics.get(publication.topic)
        if members is None:
            return
        members.handed = publication.position.offset
        hearing = list(members.whole)
        if members.watching:
            hearing += members.watching.get(name_in(publication.event), ())
        self._count(len(hearing))
        subject = publication.subject
        for live in hearing:
            # The common case of ``LiveSession.deliver`` without that call: this is for every event of everyone.
            if live._held is None and live.places is None and not live.blocked and live.user_id != subject:
                live.outlet.deliver(publication)
            else:
                live.deliver(publication)

    def gap(self, topic: Topic) -> None:
        """Events of a topic are gone before anyone here heard them: whoever hears the topic starts over with it."""
        members = self._topics.get(topic)
        if members is None:
            return
        # In another epoch, the offsets up to there are yet to be given out.
        members.handed = 0
        hearing = dict.fromkeys([*members.whole, *(live for some in members.watching.values() for live in some)])
        log.warning("topic_gap", topic=topic, sessions=len(hearing))
        for live in hearing:
            live.lost |= {topic}
            live.outlet.gap()

    def late(self, publication: Publication, newer: Sequence[Publication] = ()) -> None:
        """Hands an event to the session that caused it, which was handed it before, but not as its own.

        Its client waits for the answer to its request. To apply the event twice does it no harm, if the events after it
        follow again, so that the last one is what stays.

        Args:
            publication: with its origin.
            newer: what was handed out of its topic since.
        """
        origin = publication.origin
        live = None if origin is None else self._sessions.get(origin.session_id)
        if live is not None and publication.topic in live.topics and not live.held:
            live.outlet.deliver(publication)
            for each in newer:
                live.deliver(each)

    async def _seen(self, live: LiveSession, topic: Topic) -> Position:
        seen = live.acked.get(topic)
        return await self._broker.position(topic) if seen is None else Position(live.record.epoch, seen)
