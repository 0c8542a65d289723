"""Sessions whose connections are here, compared with what is stored of them.

Nodes tell one another what they change, but such words can be lost: with a broker that was away, with a node that was
taken for dead because it stood still. The store is right. What it says of this node's sessions is looked at now and
then, and at once after words may have been lost.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import structlog

from offhook.codes import CloseReason, EndReason
from offhook.domain import sessions as rules
from offhook.domain.events import Topic
from offhook.domain.sessions import Session, SessionState, StoryEntry, StoryKind
from offhook.errors import Conflict, OffhookError
from offhook.ports import BlocksChanged, Clock, EndSession, FenceSession, Store, SubscriptionChanged, Transaction
from offhook.services.applications import ApplicationService
from offhook.services.hub import Hub, LiveSession
from offhook.services.presence import arrive
from offhook.services.sessions import SessionService

AT_ONCE = 200
"""Sessions that are looked up together."""
STRAY_AFTER = 10.0
"""Seconds after which a session without a connection is not about to have one any more: longer than any start takes
from what is stored to the connection, although the broker be slow."""

log = structlog.get_logger(__name__)


class Reconciler:
    """Brings the connections of one node in line with the store, and the store with them."""

    def __init__(
        self, store: Store, hub: Hub, applications: ApplicationService, sessions: SessionService, clock: Clock
    ) -> None:
        self._store = store
        self._hub = hub
        self._applications = applications
        self._sessions = sessions
        self._clock = clock
        self._node = sessions.node
        self._strays: dict[int, float] = {}
        """When each was first seen."""
        self._looking = asyncio.Lock()
        self._blocks_heard: dict[int, int] = {}
        """User → number of the last word about their blocks, until they are looked up after it."""
        self._words = itertools.count()
        self.behind = False
        """Whether words may have been lost that were not caught up with: then it is to be tried again."""

    async def resync(self) -> None:
        """Catches up with all that other nodes may have said unheard. Never raises: see ``behind``."""
        self.behind = True
        async with self._looking:
            # One who waited need not do it again, unless words were lost after the other began.
            if self.behind:
                self.behind = False
                self.behind = not await self._catch_up()

    async def _catch_up(self) -> bool:
        try:
            self._applications.forget_all()
            for application in await self._applications.list():
                self._sessions.application_closed(application.id, not application.enabled)
            await self._learn_blocks()
            await self._compare()
            await self._learn_subscriptions()
        except OffhookError as error:
            log.warning("resync_failed", error=error.message)
        except Exception:
            log.exception("resync_failed")
        else:
            return True
        return False

    async def learn_blocks(self) -> None:
        """Has the hub know all blocks there are. Raises Unavailable."""
        async with self._looking:
            await self._learn_blocks()

    async def _learn_blocks(self) -> None:
        self._hub.expect_blocks()
        self._hub.load_blocks(await self._store.query(lambda tx: tx.users.all_blocks()))

    def blocks_changed(self, command: BlocksChanged) -> None:
        """Has the hub know the blocks of some users as another node says; to be followed by ``confirm_blocks``."""
        self._hub.blocks_changed(command)
        word = next(self._words)
        self._blocks_heard.update((user_id, word) for user_id, _ in command.blocks)

    async def confirm_blocks(self) -> None:
        """Looks up what was heard of blocks: the older of two words may be heard last. If it fails: see ``behind``."""
        heard = dict(self._blocks_heard)
        if not heard:
            return
        try:
            found = await self._store.query(functools.partial(_blocks, heard))
        except OffhookError:
            self.behind = True
            return
        # About whom more was heard meanwhile, more is being looked up, and may be known already.
        sure = tuple(row for row in found if self._blocks_heard.get(row[0]) == heard[row[0]])
        for user_id, _ in sure:
            del self._blocks_heard[user_id]
        self._hub.blocks_changed(BlocksChanged(sure))

    async def reconcile(self) -> None:
        """Looks once at all sessions that are here, or stored as being here. Raises Unavailable."""
        async with self._looking:
            await self._compare()

    async def _compare(self) -> None:
        await self._sessions.end_closed()
        here = list(self._hub)
        stored = frozenset(await self._store.query(lambda tx: tx.sessions.active_ids_on(self._node)))
        await self._suspend_strays({session_id for session_id in stored if self._hub.get(session_id) is None})
        for live in here:
            # A session is stored as active here before its connection is known here: this one was changed since.
            if live.id not in stored and not live.gone:
                await self._follow(live)

    # --- stored as active, without a connection ---------------------------------------------------------------------

    async def _suspend_strays(self, strays: set[int]) -> None:
        """Suspends sessions of this node that were seen without a connection here for long.

        There should be none; whatever fault left one behind must not keep its user online for ever.
        """
        now = time.monotonic()
        self._strays = {session_id: self._strays.get(session_id, now) for session_id in strays}
        for session_id in [one for one, since in self._strays.items() if now - since >= STRAY_AFTER]:
            log.error("stray_session", session=session_id)
            await self._store.transact(functools.partial(self._suspend_stray, session_id))

    def _suspend_stray(self, session_id: int, tx: Transaction) -> None:
        session = tx.sessions.get(session_id)
        application = None if session is None else tx.applications.get(session.application_id)
        if session is None or application is None or session.state is not SessionState.ACTIVE:
            return
        # It may have been resumed since the look, here or elsewhere.
        if session.node != self._node or self._hub.get(session_id) is not None:
            return
        now = self._clock.now()
        story = rules.story_of_close(CloseReason.INTERNAL, "its connection was lost without a trace", now)
        tx.sessions.save(rules.suspend(session, now, application.sessions), story)

    # --- with a connection, stored as something else ----------------------------------------------------------------

    async def _follow(self, live: LiveSession) -> None:
        """Does what the word of another node would have done that was not heard."""
        session, text, changed = await self._store.transact(functools.partial(self._look, live, dict(live.acked)))
        if live.gone:
            return
        if changed is not None:
            self._hub.subscription_changed(changed)
        if session is None or not session.live:
            reason = EndReason.OPERATOR if session is None or session.end_reason is None else session.end_reason
            await self._sessions.ended_elsewhere(EndSession(live.id, reason, text))
        elif session.generation > live.record.generation:
            await self._sessions.fenced_elsewhere(FenceSession(live.id, session.generation))

    def _look(
        self, live: LiveSession, seen: Mapping[Topic, int], tx: Transaction
    ) -> tuple[Session | None, str, SubscriptionChanged | None]:
        """A session as it is stored; one that is thought to be without its connection is given it back.

        Returns also its last words, if it has ended, and what was not told while it was thought to be without.
        """
        session = tx.sessions.get(live.id)
        if session is None:
            return None, "", None
        if not session.live:
            story = tx.sessions.story(live.id)
            return session, story[-1].detail if story else "", None
        # Whoever broke since then was suspended already, or waits for this transaction in order to be.
        suspended = session.state is SessionState.SUSPENDED and not live.gone
        if suspended and session.generation == live.record.generation:
            user = tx.users.get(session.application_id, session.user_id)
            now = self._clock.now()
            try:
                # What its client has seen was not saved while it counted as suspended.
                revived = replace(rules.revive(session, now, self._node), positions=seen)
            except Conflict:
                # Its time is over; who looks for such sessions will end it.
                return session, "", None
            story_line = StoryEntry(now, StoryKind.RESUMED, detail="its connection was there all the time")
            tx.sessions.save(revived, story_line)
            if user is not None and revived.announces:
                arrive(tx, user)
            subscription = tx.subscriptions.get(live.id)
            return revived, "", None if subscription is None else SubscriptionChanged(subscription)
        return session, "", None

    # --- subscriptions ----------------------------------------------------------------------------------------------

    async def _learn_subscriptions(self) -> None:
        ids = [live.id for live in self._hub if live.subscription is not None]
        for start in range(0, len(ids), AT_ONCE):
            some = ids[start : start + AT_ONCE]
            for command in await self._store.query(functools.partial(_subscriptions, some)):
                self._hub.subscription_changed(command)


def _blocks(users: Iterable[int], tx: Transaction) -> Sequence[tuple[int, frozenset[int]]]:
    return [(user_id, tx.users.blocked_either_way(user_id)) for user_id in users]


def _subscriptions(ids: Sequence[int], tx: Transaction) -> Sequence[SubscriptionChanged]:
    found = [tx.subscriptions.get(session_id) for session_id in ids]
    return [SubscriptionChanged(subscription) for subscription in found if subscription is not None]
