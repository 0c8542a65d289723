"""What time does to sessions: leases are renewed, positions saved, and what is overdue is ended.

Nothing here depends on a disconnect having been noticed: a node that died stops renewing its lease, and any other node,
or the same one started again, finds its sessions and suspends them.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

import structlog

from offhook.codes import CloseReason, EndReason
from offhook.domain import sessions as rules
from offhook.domain.events import Topic
from offhook.domain.sessions import Session, SessionState
from offhook.errors import OffhookError
from offhook.ports import Broker, Clock, Observer, Store, Transaction
from offhook.services.hub import Hub, LiveSession
from offhook.services.presence import leave
from offhook.services.sessions import BATCH, SessionService

SWEEP_EVERY = 0.5
"""Seconds between sweeps: how late an overdue session may be ended."""
SAVE_AFTER = 0.1
"""Seconds after which is saved what clients have seen, so that little is forgotten when the process is killed."""
SAVE_SHARE = 20
"""Saving takes at most one part in so many of the time, however many clients see however much ..."""
SAVE_AT_LATEST = 5.0
"""... unless that put it off for longer than this."""
FORGET_EVERY = 60.0
RECONCILE_EVERY = 30.0
"""Seconds between two looks for sessions of this node that are stored as active but have no connection."""

log = structlog.get_logger(__name__)


class Reaper:
    """The periodic work of one node.

    Args:
        lease: seconds that this node's lease runs; renewed three times as often.
        retention: seconds that ended sessions stay in the ledger.
    """

    def __init__(
        self,
        store: Store,
        broker: Broker,
        hub: Hub,
        sessions: SessionService,
        clock: Clock,
        observer: Observer,
        lease: float,
        retention: float,
    ) -> None:
        self._store = store
        self._broker = broker
        self._hub = hub
        self._sessions = sessions
        self._clock = clock
        self._observer = observer
        self._lease = lease
        self._retention = retention
        self._node = sessions.node
        self._tasks: list[asyncio.Task[None]] = []
        self._dirty: set[LiveSession] = set()
        self._seen_more = asyncio.Event()
        self._strays: set[int] = set()

    def acked(self, live: LiveSession) -> None:
        """A client has seen more of its topics: its positions are to be saved soon."""
        if not self._dirty:
            self._seen_more.set()
        self._dirty.add(live)

    async def start(self) -> None:
        """Takes the node's lease and begins."""
        await self._broker.acquire_lease(_lease_name(self._node), self._node, self._lease)
        self._tasks = [
            asyncio.create_task(self._run(), name="reaper"),
            asyncio.create_task(self._save(), name="positions"),
        ]

    async def stop(self) -> None:
        """Ends, saves what is left to save and gives the lease back."""
        if not self._tasks:
            return
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await self._retry_suspensions()
        await self.save_positions()
        await self._broker.release_lease(_lease_name(self._node), self._node)

    async def _run(self) -> None:
        renewed = looked = forgot = reconciled = time.monotonic()
        while True:
            await asyncio.sleep(SWEEP_EVERY)
            now = time.monotonic()
            try:
                if now - renewed >= self._lease / 3:
                    await self._broker.acquire_lease(_lease_name(self._node), self._node, self._lease)
                    renewed = now
                await self._retry_suspensions()
                await self.sweep()
                if now - looked >= 1.0:
                    await self.bury_nodes()
                    looked = now
                if now - reconciled >= RECONCILE_EVERY:
                    await self.reconcile()
                    reconciled = now
                if now - forgot >= FORGET_EVERY:
                    await self.forget()
                    forgot = now
            except OffhookError as error:
                log.warning("sweep_failed", error=error.message)
            except Exception:
                log.exception("sweep_failed")

    async def _save(self) -> None:
        pause = SAVE_AFTER
        while True:
            await self._seen_more.wait()
            await asyncio.sleep(pause)
            self._seen_more.clear()
            began = time.monotonic()
            failed: Exception | None = None
            try:
                await self.save_positions()
            except Exception as error:
                failed = error
            pause = min(max(SAVE_AFTER, SAVE_SHARE * (time.monotonic() - began)), SAVE_AT_LATEST)
            if failed is not None:
                log.error("positions_not_saved", exc_info=failed)
                self._seen_more.set()

    async def sweep(self) -> None:
        """Lets users leave whose sessions are broken for too long, and ends sessions that nobody resumed."""
        while True:
            handled, ended = await self._store.transact(self._sweep)
            for session, reason in ended:
                await self._sessions.tell_ended([session], reason)
            if handled < BATCH:
                return

    def _sweep(self, tx: Transaction) -> tuple[int, Sequence[tuple[Session, EndReason]]]:
        now = self._clock.now()
        due = tx.sessions.due(now, BATCH)
        ended: list[tuple[Session, EndReason]] = []
        for session in due:
            reason = rules.overdue(session, now)
            if reason is not None:
                over = rules.end(session, now, reason)
                tx.sessions.save(over, rules.StoryEntry(now, rules.StoryKind.ENDED, reason.value))
                ended.append((over, reason))
            else:
                tx.sessions.save(replace(session, leave_at=None))
        for application_id, user_id in {(session.application_id, session.user_id) for session in due}:
            leave(tx, application_id, user_id, now)
        return len(due), ended

    async def bury_nodes(self) -> None:
        """Suspends the sessions of nodes whose lease ran out."""
        for node in await self._store.query(lambda tx: tx.sessions.active_nodes()):
            if node == self._node or await self._broker.lease_holder(_lease_name(node)) is not None:
                continue
            log.warning("node_lost", node=node)
            while True:
                lost = await self._store.transact(functools.partial(self._bury, node))
                for _ in lost:
                    self._observer.session_suspended(CloseReason.PEER_LOST)
                if len(lost) < BATCH:
                    break

    def _bury(self, node: str, tx: Transaction) -> Sequence[Session]:
        now = self._clock.now()
        lost = tx.sessions.active_on(node, BATCH)
        policies = {
            application_id: application.sessions
            for application_id in {session.application_id for session in lost}
            if (application := tx.applications.get(application_id)) is not None
        }
        story = rules.story_of_close(CloseReason.PEER_LOST, "its server died", now)
        for session in lost:
            tx.sessions.save(rules.suspend(session, now, policies[session.application_id]), story)
        return lost

    async def reconcile(self) -> None:
        """Suspends sessions of this node that have been without a connection here at this and the last look.

        There should be none; whatever fault left one behind must not keep its user online for ever.
        """
        stored = await self._store.query(lambda tx: tx.sessions.active_ids_on(self._node))
        strays = {session_id for session_id in stored if self._hub.get(session_id) is None}
        lost, self._strays = strays & self._strays, strays
        for session_id in lost:
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

    async def save_positions(self) -> None:
        """Saves what clients have seen since the last time."""
        if not self._dirty:
            return
        dirty, self._dirty = self._dirty, set()
        # What a connection that is gone had seen was saved when it went; a newer one may have seen more since.
        here = [(live, dict(live.acked), live.proof) for live in dirty if not live.gone]
        rows: list[tuple[int, Mapping[Topic, int]]] = [(live.id, acked) for live, acked, _ in here]
        # Which messages a user got is known of the user, and counts beyond the session, too.
        marks = [(live.user_id, live.taken) for live in dirty if live.taken]

        def save(tx: Transaction) -> None:
            tx.sessions.save_positions(rows)
            if marks:
                tx.messages.mark_delivered(marks)

        try:
            await self._store.transact(save)
        except BaseException:
            self._dirty |= dirty
            raise
        for live, _, proof in here:
            if proof:
                live.outlet.saved(proof)

    async def forget(self) -> None:
        """Deletes old sessions from the ledger and used tokens that are too old anyway, a batch at a time."""
        before = self._clock.now() - timedelta(seconds=self._retention)
        forgotten = BATCH
        while forgotten == BATCH:
            forgotten = await self._store.transact(lambda tx: tx.sessions.forget(before, BATCH))
        forgotten = BATCH
        while forgotten == BATCH:
            forgotten = await self._store.transact(lambda tx: tx.forget_tokens(self._clock.now(), BATCH))

    async def _retry_suspensions(self) -> None:
        for session_id in list(self._sessions.unsaved):
            live, reason, detail = self._sessions.unsaved.pop(session_id)
            await self._sessions.suspend(live, reason, detail)


def _lease_name(node: str) -> str:
    return f"node.{node}"
