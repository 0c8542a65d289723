"""What a subscription's client is told, in which order, and how far that has got (Kandy protocol notes, 4.2)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from offhook.codes import EndReason
from offhook.domain.events import (
    MessageSent,
    Position,
    PresenceChanged,
    UserDeleted,
    application_topic,
    user_topic,
)
from offhook.domain.subscriptions import IM, Owed, Subscription, shown, user_of
from offhook.errors import Conflict, NotFound, OffhookError
from offhook.gateways.background import in_background
from offhook.gateways.kandy import notifications
from offhook.gateways.kandy.gateway import Gateway
from offhook.gateways.kandy.window import PROBE_AFTER, PROBE_LATER, Window
from offhook.ports import Publication
from offhook.server.timers import Timer
from offhook.server.websocket import Socket
from offhook.services.hub import HISTORY_PAGE, MAX_REPLAY, LiveSession

ANSWER_FIRST = 0.25
"""Seconds by which what a request asked for comes later than its answer: before that, clients do not listen."""
AGAIN_AFTER = 1.0
LOOK_EVERY = 30.0

SETTLED_AFTER = 1.0
"""Seconds after which an event that was read in a history has surely been handed out, too."""

_PRESENCE = (PresenceChanged, UserDeleted)

log = structlog.get_logger(__name__)


class Feed:
    """The sending half of a notification socket.

    Nothing is sent to a client that has not proved to have got all but a hundred of the notifications before (see
    ``window``): its session *falls behind* then, and is brought up from the topics' histories when there is room again.

    Args:
        gateway: what all share.
        session_id: the session that the channel names.
    """

    __slots__ = (
        "_again",
        "_feeding",
        "_fresh",
        "_gap",
        "_gateway",
        "_im_before",
        "_im_begun",
        "_im_since",
        "_live",
        "_over",
        "_released_at",
        "_ripe",
        "_room",
        "_session_id",
        "_socket",
        "_spellings",
        "_timer",
        "_uc",
        "_window",
    )

    def __init__(self, gateway: Gateway, session_id: int) -> None:
        self._gateway = gateway
        self._session_id = session_id
        self._socket: Socket | None = None
        self._live: LiveSession | None = None
        self._over = False
        self._released_at = 0.0
        self._ripe: Subscription | None = None
        self._gap = False
        self._uc = False
        self._feeding = False
        self._again = False
        self._timer = Timer(self._on_timer)
        self._window = Window()
        self._room: asyncio.Future[None] | None = None
        self._im_since: int | None = None
        self._im_before: int | None = None
        self._im_begun = False
        self._spellings: dict[str, tuple[str, ...]] = {}
        self._fresh: set[str] | None = None

    # --- events: nothing here waits ---------------------------------------------------------------------------------

    def deliver(self, publication: Publication) -> None:
        """Tells the client of an event, if it has subscribed to such."""
        live = self._live
        if live is None or self._over:
            return
        event = publication.event
        window = self._window
        topic, offset = publication.topic, publication.position.offset
        window.sent[topic] = offset
        if isinstance(event, _PRESENCE):
            spellings = self._spellings.get(event.user.name)
            if spellings is not None:
                if topic[0] == "u":
                    if self._fresh is not None:
                        self._fresh.difference_update(spellings)
                    in_background(self._owe(live, spellings))
                else:
                    for spelling in spellings:
                        self._tell(notifications.presence(publication, event.user, spelling), PROBE_LATER)
                    if self._fresh is not None:
                        self._fresh.update(spellings)
        elif isinstance(event, MessageSent) and self._im_since is not None and offset > self._im_since:
            window.message = event.message.id
            self._tell(notifications.message(publication, event.message, self._uc))
        if not window.room(live.share) and not live.held:
            live.fall_behind(window.sent)

    def _tell(self, notification: bytes, probe_after: float = PROBE_AFTER) -> None:
        socket = self._socket
        if socket is None:
            return
        socket.send(notification)
        gateway = self._gateway
        gateway.metrics.frames_out += 1
        if self._window.add():
            self._probe()
            return
        timers, timer = gateway.timers, self._timer
        if timer.due - timers.now > 2 * probe_after or not timer.armed:
            timers.schedule(timer, probe_after)

    def changed(self) -> None:
        """The subscription has changed; what the client asked for comes after the answer to its request."""
        live = self._live
        if live is not None and live.subscription is not None:
            # Of whom it does not want to hear any more, it hears nothing from now on.
            watched = frozenset(live.subscription.watched)
            kept = ((name, tuple(s for s in spelt if s in watched)) for name, spelt in self._spellings.items())
            self._spellings = {name: spelt for name, spelt in kept if spelt}
            if IM not in live.subscription.services:
                self._im_begun, self._im_since = False, None
            elif not self._im_begun and not live.held:
                # What comes from now on is for the client, even if this socket does not live to tell it.
                live.fall_behind(self._window.sent)
            self._ripen_later(live.subscription)

    def _ripen_later(self, subscription: Subscription) -> None:
        """A request was answered just now, or is about to be: what it asked for is to come later."""
        asyncio.get_running_loop().call_later(ANSWER_FIRST, self._ripen, subscription)

    def _ripen(self, subscription: Subscription) -> None:
        """The client listens for what it asked for until then."""
        if self._ripe is None or subscription.version >= self._ripe.version:
            self._ripe = subscription
        self._sync()

    def gap(self) -> None:
        """Some of what the client was to be told is gone: it is told all of it anew, or to start over."""
        self._sync()

    # --- proofs -----------------------------------------------------------------------------------------------------

    def _probe(self) -> None:
        payload = self._window.probe()
        if payload is not None and self._socket is not None:
            self._socket.probe(payload)

    def alive(self, data: bytes) -> None:
        """A WebSocket pong came: what was sent before its ping has arrived."""
        mark = self._window.proved(data)
        live = self._live
        if mark is None or live is None:
            return
        topics = live.topics
        for topic, offset in mark.sent.items():
            # Beyond a gap nothing counts as seen before it is stored that the client is to be told all anew.
            if topic in topics and topic not in live.lost and offset > live.acked.get(topic, 0):
                live.acked[topic] = offset
        live.taken = max(live.taken, mark.message)
        live.proof = mark.number
        self._gateway.reaper.acked(live)
        if mark.owed:
            got = frozenset(mark.owed)
            if live.subscription is not None:
                live.subscription = shown(live.subscription, got)
            if self._ripe is not None:
                self._ripe = shown(self._ripe, got)
            seen = dict(live.acked)
            in_background(self._gateway.subscriptions.shown(live.id, live.record.generation, got, seen))

    def saved(self, proof: int) -> None:
        """What the client is known to have got is stored, so that even after a crash it is not sent again."""
        self._window.saved(proof)
        if self._has_room:
            self._make_room()
            if self._live is not None and self._live.held:
                self._sync()

    @property
    def _has_room(self) -> bool:
        """Whether a page of history can be sent."""
        return self._window.room(HISTORY_PAGE)

    async def ready(self) -> None:
        """Waits until the client has taken most of what it was sent, or is gone."""
        # What was sent in this tick is written at its end.
        await asyncio.sleep(0)
        while self._socket is not None and not self._over and not self._has_room:
            self._probe()
            if self._room is None:
                self._room = asyncio.get_running_loop().create_future()
            await self._room

    def _make_room(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    def _on_timer(self) -> None:
        if self._socket is None:
            return
        self._gateway.timers.schedule(self._timer, LOOK_EVERY)
        live = self._live
        if live is not None and not live.held and self._gateway.timers.now - self._released_at >= SETTLED_AFTER:
            live.places = None
        if self._window.unproved:
            self._probe()
        elif live is not None:
            self._note_heard(live)
        if self._again or (live is not None and live.held and self._has_room):
            self._sync()

    def _note_heard(self, live: LiveSession) -> None:
        """What was handed out and not told was not for this client: it counts as seen as soon as all else is.

        Else a client that is told little would fall so far behind that its history is gone.
        """
        if live.held:
            return
        window, everybody = self._window, application_topic(live.application.id)
        if live.watched:
            window.sent[everybody] = max(window.sent.get(everybody, 0), self._gateway.hub.handed(everybody))
        if window.unproved:
            return
        moved = 0
        for topic in live.topics:
            sent, acked = window.sent.get(topic, 0), live.acked.get(topic, 0)
            if sent > acked and topic not in live.lost:
                live.acked[topic] = sent
                # Of everybody's events there are many, and few are worth the storing.
                moved += sent - acked if topic == everybody else MAX_REPLAY
        if moved >= MAX_REPLAY // 4:
            self._gateway.reaper.acked(live)

    # --- bringing up ------------------------------------------------------------------------------------------------

    def _sync(self) -> None:
        """Sees to it that what is told to the client is in line with its subscription, and that it misses nothing."""
        self._again = True
        # Before the client listens there is nothing to do; then this comes again.
        if self._live is not None and self._ripe is not None and not self._over and not self._feeding:
            self._feeding = True
            in_background(self._bring_up())

    async def _bring_up(self) -> None:
        try:
            while self._again and not self._over:
                live = self._live
                if live is None:
                    return
                self._again = False
                await self._bring_in_line(live)
                behind = live.held and self._has_room and not live.gone and not self._awaits_messages(live)
                self._again = self._again or behind
        except Exception:
            # It stays held, or owed, and the timer tries again.
            log.exception("bring_up_failed", session=self._session_id)
            self._again = True
            self._gateway.timers.schedule(self._timer, AGAIN_AFTER)
        finally:
            self._feeding = False

    def _awaits_messages(self, live: LiveSession) -> bool:
        """Whether the client has asked for messages and does not listen for them yet: until then they are kept back."""
        return live.subscription is not None and IM in live.subscription.services and not self._im_begun

    async def _bring_in_line(self, live: LiveSession) -> None:
        await self.ready()
        subscription, newest = self._ripe, live.subscription
        if subscription is None or newest is None:
            return
        self._fresh = set()
        try:
            await self._catch_up(live, subscription, newest)
        finally:
            self._fresh = None

    async def _catch_up(self, live: LiveSession, subscription: Subscription, newest: Subscription) -> None:
        hub, window = self._gateway.hub, self._window
        own, everybody = user_topic(live.user_id), application_topic(live.application.id)
        spellings = _spellings(subscription, newest)
        names = frozenset(spellings)
        # Who gave messages up and asked for them again begins with what was asked for last.
        asked_last = IM in newest.services and subscription.im_since == newest.im_since
        im_begins = IM in subscription.services and asked_last and not self._im_begun
        self._note_heard(live)
        if not live.held and (im_begins or names != live.watched):
            live.fall_behind(window.sent)
        live.share = max(map(len, spellings.values()), default=1)
        self._spellings = spellings
        await hub.watch(live, names, subscription.watched_since)
        if live.gone:
            return
        if names:
            window.sent[everybody] = max(window.sent.get(everybody, 0), live.acked[everybody])
        else:
            window.sent.pop(everybody, None)
            live.acked.pop(everybody, None)
        if im_begins:
            self._im_since = since = subscription.im_since
            asked_now = since != self._im_before
            if asked_now and live.places is not None and live.places[own].offset > since:
                # Messages that came between the client's request and now.
                live.places[own] = Position(live.record.epoch, since)
            # Whoever gives messages up meanwhile, and asks for them again, begins anew.
            self._im_begun = True
            try:
                await self._send_backlog(live, subscription.backlog)
            except BaseException:
                self._im_begun = False
                raise
        elif IM not in newest.services:
            self._im_begun, self._im_since = False, None
        if self._awaits_messages(live):
            return
        await hub.release(live)
        self._released_at = self._gateway.timers.now
        if self._gap or own in live.lost:
            # What is missing cannot be told any more: the client is to start over.
            await self._start_over(live)
            return
        owing = await self._owe_all(live) if everybody in live.lost else 0
        under_way = window.owed_under_way
        # What is asked for meanwhile, be it again, is told after its answer.
        known = () if live.subscription is None else live.subscription.owed
        still_owed = {one.name for one in known}
        ripe = (
            *(one for one in known if one.asked == owing),
            *(one for one in subscription.owed if one.name in still_owed),
        )
        owed = [one for one in dict.fromkeys(ripe) if one not in under_way]
        if owed:
            await self._send_owed(live, owed)

    async def _owe_all(self, live: LiveSession) -> int:
        """Too much happened to those whom the client watches: it is told how they are now.

        Returns the subscription's version that says so.
        """
        self._fresh = set()
        subscription = await self._gateway.subscriptions.owe(live.id)
        live.lost -= {application_topic(live.application.id)}
        self._learn(live, subscription)
        return 0 if subscription is None else subscription.version

    async def _owe(self, live: LiveSession, names: Sequence[str]) -> None:
        """A block came or went: how a user is for this client from now on, only the store knows."""
        try:
            self._learn(live, await self._gateway.subscriptions.owe(live.id, names))
        except OffhookError as error:
            log.warning("presence_not_owed", session=live.id, error=error.message)
            live.lost |= {application_topic(live.application.id)}
        self.changed()

    @staticmethod
    def _learn(live: LiveSession, subscription: Subscription | None) -> None:
        known = live.subscription
        if subscription is not None and (known is None or subscription.version > known.version):
            live.subscription = subscription

    async def _start_over(self, live: LiveSession) -> None:
        try:
            await self._gateway.sessions.end(live.id, EndReason.HISTORY_LOST)
        except (NotFound, Conflict):
            # It ended meanwhile, for a reason that its client is told.
            return

    async def _send_backlog(self, live: LiveSession, until: int) -> None:
        """Tells of the messages that waited when the client began to ask for messages."""
        after = max(live.taken, self._window.message)
        while self._live is live and self._im_begun and after < until:
            page = await self._gateway.messages.undelivered(live.user_id, after, until, HISTORY_PAGE)
            for message in page:
                after = self._window.message = message.id
                self._tell(notifications.encode_message(message, self._uc))
            await self.ready()
            if len(page) < HISTORY_PAGE:
                return

    async def _send_owed(self, live: LiveSession, owed: Sequence[Owed]) -> None:
        """Tells the presence that a client has asked for, unless an event that came meanwhile told something newer."""
        names = list(dict.fromkeys(one.name for one in owed))
        found = await self._gateway.subscriptions.presence(live.application.id, live.user_id, names)
        for one in owed:
            if not self._window.room(1 + live.share):
                await self.ready()
            if self._live is not live:
                return
            if self._fresh is None or one.name not in self._fresh:
                self._tell(notifications.owed(self._session_id, one, found[one.name]))
            self._window.add_owed(one)


def _spellings(asked: Subscription, newest: Subscription) -> dict[str, tuple[str, ...]]:
    """The users whom a client watches, as it spells them: those it has asked for and has not stopped to watch since."""
    still = frozenset(newest.watched)
    spellings: dict[str, tuple[str, ...]] = {}
    for spelling in asked.watched:
        if spelling in still:
            name = user_of(spelling)
            spellings[name] = (*spellings.get(name, ()), spelling)
    return spellings
